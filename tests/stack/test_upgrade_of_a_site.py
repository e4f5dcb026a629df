"""A site of an older tree is upgraded on its volumes: what people made and what was open stays."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import REPOSITORY, Stack, has_engine, missing, new_name, run, tracked_files, wait_for

BASE = os.environ.get("BASE", "9d34741")
"""The commit that is upgraded from."""

MADE = """
from datetime import timedelta
from django.utils import timezone
from django_celery_beat.models import PeriodicTask
from soc.alerts import engine
from soc.alerts.conditions import Condition
from soc.core.severity import Severity
from soc.events.models import Site
from soc.ldap_probe.models import DirectoryServer
from soc.notify.models import Subscription
from soc.ssl_certs.models import Endpoint, Group

policy = Group.objects.create(name="long", warning_days=90, warning_share=100)
Endpoint.objects.create(host="portal.upgrade.test", port=8443, group=policy, enabled=False)
DirectoryServer.objects.create(host="dc1.upgrade.test", enabled=False)
Site.objects.create(name="north")
PeriodicTask.objects.filter(name="housekeeping").update(enabled=False, description="off for now")
Subscription.objects.update(report="daily", csv=True)
engine.report([Condition(
    application="ssl_certs", rule="reachable", subject=f"upgrade-{n}", severity=Severity.CRITICAL,
    observed_at=timezone.now(), summary="before the upgrade",
) for n in range(3) for _ in range(2)])
answer = 0
"""

KEPT = """
from django_celery_beat.models import PeriodicTask
from soc.alerts.models import Alert
from soc.events.models import Site
from soc.ldap_probe.models import DirectoryServer
from soc.notify.models import OutboundMail, Subscription
from soc.ssl_certs.models import Endpoint

answer = {
    "endpoints": list(Endpoint.objects.filter(host__endswith=".upgrade.test").values_list(
        "pk", "host", "port", "group__name", "group__warning_days", "enabled")),
    "directories": list(DirectoryServer.objects.filter(host__endswith=".upgrade.test").values_list(
        "pk", "host", "enabled")),
    "sites": list(Site.objects.filter(name="north").values_list("pk", "name")),
    "schedule": list(PeriodicTask.objects.filter(name="housekeeping").values_list(
        "pk", "task", "queue", "enabled", "description")),
    "subscription": list(Subscription.objects.values_list("pk", "name", "report", "csv")),
    "alerts": sorted(Alert.objects.filter(subject__name__startswith="upgrade-").values_list(
        "pk", "subject__name", "subject__fingerprint", "state", "opened_at")),
    "mails": sorted(OutboundMail.objects.filter(
        subject__contains="upgrade-").values_list("pk", "dedupe_key", "subject")),
}
"""


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Stack]:
    """The tree of the older commit with a site that nobody has started."""
    if not has_engine():
        missing("no Docker engine answers")
    tree = tmp_path / "tree"
    tree.mkdir()
    archive = subprocess.run(
        ("git", "archive", BASE), cwd=REPOSITORY, capture_output=True, check=False
    )
    if archive.returncode:
        missing(f"the commit {BASE} is not here: fetch the whole history")
    subprocess.run(("tar", "-x", "-C", tree), input=archive.stdout, check=True)
    made = Stack(tree, new_name())
    example = tree / "env" / "example.env"
    image = f"soc-app:{made.site}"
    example.write_text(re.sub(r"(?m)^APP_IMAGE=.*$", f"APP_IMAGE={image}", example.read_text()))
    try:
        made.create()
        yield made
    finally:
        made.remove()
        run("docker", "image", "rm", "--force", image, check=False)


def upgrade(stack: Stack) -> Stack:
    """Put this tree in the place of the older one, as `git checkout` does."""
    for entry in stack.folder.iterdir():
        if entry.name not in ("env", ".env"):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for name in tracked_files():
        (stack.folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, stack.folder / name)
    return Stack(stack.folder, stack.site, stack.web_port, stack.flower_port)


def kept(stack: Stack) -> dict[str, Any]:
    found = stack.data(KEPT)
    assert isinstance(found, dict)
    return found


def test_a_site_is_upgraded_on_its_volumes(old: Stack) -> None:
    old.make("up")
    old.compose("stop", "worker-email")
    old.data(MADE)
    before = kept(old)
    print(f"made: { {name: len(rows) for name, rows in before.items()} }")
    assert all(before.values())
    assert len(before["alerts"]) == len(before["mails"]) == 3
    assert [mail for mail in old.mail() if "upgrade-" in mail["Subject"]] == []
    new = upgrade(old)
    new.make("up")
    after = kept(new)
    for name, rows in before.items():
        assert after[name] == rows, name
    assert new.data("""
from django.core.management import call_command
from io import StringIO
out = StringIO()
call_command("check", databases=["default"], stdout=out)
answer = out.getvalue()
""").startswith("System check identified no issues")

    def arrived() -> list[str]:
        return sorted(m["Subject"] for m in new.mail() if "upgrade-" in m["Subject"])

    wait_for("the open mail", lambda: len(arrived()) >= 3)
    assert len(arrived()) == 3, "each open mail once"
    print(f"kept: { {name: len(rows) for name, rows in after.items()} }, mails: {len(arrived())}")
