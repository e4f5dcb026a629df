"""People are notified and answer, on the real parts: intake, mail links, cron jobs, rotas."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import alertmanager
from harness import Stack, wait_for

ALERT = 'Alert.objects.get(rule__application="alertmanager")'


@pytest.fixture(scope="module", autouse=True)
def nobody_is_on_call_afterwards(stack: Stack) -> Iterator[None]:
    """Leave no subscription on the site that other tests share: it gets their notices too."""
    yield
    stack.data("""
from soc.notify.models import Subscription
from soc.oncall.models import Rota
Subscription.objects.filter(name="on call").delete()
answer = Rota.objects.all().delete()[0]
""")


def state(stack: Stack) -> str:
    code = f"from soc.alerts.models import Alert\nanswer = {ALERT}.state"
    return str(stack.data(code))


def test_a_foreign_alert_is_mailed_acknowledged_from_the_mail_and_ends(
    stack: Stack, tmp_path: Path
) -> None:
    secret = stack.data("""
from django.contrib.auth.models import Group, User
from soc.core import tokens
from soc.notify.models import Subscription
from soc.oncall.models import Rota, RotaMember
user = User.objects.create_user("alertmanager", email="jo@soc.internal", first_name="Jo")
user.groups.add(Group.objects.get(name="Reporters"), Group.objects.get(name="Viewers"))
rota = Rota.objects.create(name="primary", time_zone="Europe/Berlin", starts_on="2026-01-05")
RotaMember.objects.create(rota=rota, person=user)
Subscription.objects.create(name="on call", rota=rota, applications="alertmanager")
answer = tokens.create("alertmanager", user)
""")
    ca = stack.folder / "env" / stack.site / "ca" / "ca.pem"
    receiver = f"{stack.url}/api/v1/alertmanager"
    with alertmanager.running(tmp_path, receiver, secret, ca) as address:
        alertmanager.fire(address, datetime.now(UTC) + timedelta(hours=1))

        def mail() -> str:
            stack.run_task("soc.notify.tasks.send_due_mail")
            found = [m["text"] for m in stack.mail() if "jo@soc.internal" in m["X-Envelope-To"]]
            return found[0] if found else ""

        text = wait_for("the mail to who is on call", mail, seconds=120)
        link = re.search(r"https://\S+(/acknowledge/\S+)", text)
        assert link, text
        phone = stack.browser()
        status, _, page = phone.open(link[1])
        assert (status, "DiskFull" in page, state(stack)) == (200, True, "firing")
        status, _, page = phone.post(link[1], name="Jo", minutes=60, note="on it")
        assert "Jo (link of on call)" in page
        assert state(stack) == "acknowledged"
        alertmanager.fire(address, datetime.now(UTC))
        wait_for("its end", lambda: state(stack) == "resolved", seconds=60)


def test_the_audit_log_has_who_used_the_link(stack: Stack) -> None:
    entries = stack.data("""
from auditlog.models import LogEntry
answer = list(LogEntry.objects.filter(content_type__model="alert").values_list(
    "additional_data", flat=True))
""")
    assert [entry["who"] for entry in entries] == ["Jo (link of on call)"]


def test_the_shift_has_its_numbers_in_mariadb(stack: Stack) -> None:
    """Means of durations, and times cut to minutes and hours, are the database's own."""
    numbers = stack.data("""
from datetime import timedelta
from django.utils import timezone
from soc.alerts import shifts
now = timezone.now()
short, long = (shifts.read(now - timedelta(days=days), now) for days in (1, 7))
answer = [[s.acknowledged, s.resolved >= 1, s.mean_to_resolve > timedelta(0),
           s.changes.total_resolved >= 1, len(shifts.notice(s).facts) > 4] for s in (short, long)]
""")
    assert numbers == [[1, True, True, True, True]] * 2


def test_a_cron_job_is_missed_and_heard_of_again(stack: Stack) -> None:
    address = stack.data("""
from datetime import timedelta
from django.utils import timezone
from soc.cronjobs import pings
from soc.cronjobs.models import CronJob
job = CronJob(name="backup", period=1, grace=0, created_at=timezone.now() - timedelta(hours=1))
answer = pings.renew(job)
job.save()
""")
    stack.run_task("soc.cronjobs.tasks.watch")
    code = """
from soc.alerts.models import Alert
answer = list(Alert.objects.filter(rule__application="cronjobs").values_list("state", flat=True))
"""
    assert stack.data(code) == ["firing"]
    status, _, body = stack.browser().open(address.removeprefix(stack.url))
    assert (status, body) == (200, "OK\n")
    assert stack.data(code) == ["resolved"]
    secret = address.rpartition("/")[2]
    stack.browser().open(f"/ping/{secret}/nonsense")
    assert secret not in stack.compose("logs", "web")
