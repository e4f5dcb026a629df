"""Gives the tests a site: the settings are validated in a test as they are in a container."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import django
import hypothesis
import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

from harness import (
    REPOSITORY,
    Stack,
    copy_tree,
    has_engine,
    missing,
    new_name,
    remove_leftovers,
)
from local_site import become_a_process_of_a_site

# Before Django's settings are read, and so at import.
_SITE_ROOT = become_a_process_of_a_site()
django.setup()


# Of applications that are yet to be made.
collect_ignore = ["skeleton"]

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_unconfigure() -> None:
    shutil.rmtree(_SITE_ROOT)


# Files of tests/stack by the site that they share, in one process; the others share "site". Most of
# their time they wait, so that sites side by side end sooner, and about together.
GROUPS = {
    "images": ("test_base_images", "test_first_look", "test_upgrade_of_a_site"),
    "mail and browser": ("test_mail",),
    "servers without a site": ("test_alertmanager", "test_real_relays", "test_xoauth2"),
    "probes and beat": (
        *("test_alert_races", "test_bad_endpoints", "test_beat", "test_beat_database"),
        *("test_beat_publisher", "test_certificate_cases", "test_directories", "test_events"),
        *("test_faults", "test_provider"),
    ),
}
_LATER = {"browser": 1, "embedded": 2, "unit": 3}
_GROUP_OF = {name: group for group, names in GROUPS.items() for name in names}


class BySite(LoadScopeScheduling):
    """Gives the tests that share a site to one process, so that several can share the tests."""

    def _split_scope(self, nodeid: str) -> str:
        path = Path(nodeid.partition("::")[0])
        if path.parts[1] == "browser":
            return "mail and browser"
        if path.parts[1] == "stack":
            return _GROUP_OF.get(path.stem, "site")
        return str(path)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the sites: what takes longest must not begin last."""
    items.sort(key=lambda item: _LATER.get(item.path.relative_to(REPOSITORY).parts[1], 0))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> BySite:
    """Take our scheduler whatever ``--dist`` says."""
    return BySite(config, log)


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A copy of this tree with a created site that nobody has started."""
    if not has_engine():
        missing("no Docker engine answers")
    remove_leftovers()
    made = Stack(copy_tree(tmp_path_factory.mktemp("clone")), new_name())
    try:
        made.create()
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="session")
def stack(tree: Stack) -> Stack:
    """The site in containers that all tests share, started with `make up`."""
    tree.make("up")
    # Tests look for mails one by one: no storm of theirs is to become a digest.
    tree.data("""
from soc.notify.models import Subscription
answer = Subscription.objects.update(storm_limit=10_000)
""")
    return tree


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A clock (``mailing.Clock``) that stands still until it is moved."""
    from django.utils import timezone

    from mailing import Clock

    clock = Clock(timezone.now())
    monkeypatch.setattr(timezone, "now", lambda: clock.now)
    return clock
