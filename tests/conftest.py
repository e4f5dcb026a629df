"""Gives the tests a site: the settings are validated in a test as they are in a container."""

import os
import shutil
import tempfile
from pathlib import Path

import django
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def _become_a_process_of_a_site() -> Path:
    """Create an embedded site and put its variables into this process's environment."""
    from soc.core import site as sites

    root = Path(tempfile.mkdtemp(prefix="soc-test-"))
    shutil.copy(REPOSITORY / "env" / "example.env", root)
    site = sites.Site("local", root)
    sites.create(site, "embedded", {})
    sites.render(site)
    state = root / "state"
    state.mkdir()
    os.environ |= site.values() | {
        "DJANGO_SETTINGS_MODULE": "soc.settings",
        "SOC_SERVICE": "migrate",
        "SOC_IDENTITY": str(site.folder / "migrate"),
        "SOC_STATE": str(state),
    }
    return root


# Before Django's settings are read, and so at import.
_SITE_ROOT = _become_a_process_of_a_site()
django.setup()


def pytest_unconfigure() -> None:
    shutil.rmtree(_SITE_ROOT)


@pytest.fixture
def required() -> bool:
    """Whether a missing engine or browser is an error (REQUIRE=all) instead of a skip."""
    return os.environ.get("REQUIRE") == "all"
