"""The daily and the weekly report of the directory servers."""

from __future__ import annotations

import csv
import io
from datetime import datetime, timedelta

import pytest
from answering import server
from django.utils import timezone

from mailing import Clock
from soc.ldap_probe import report
from soc.ldap_probe.models import DirectoryServer, ProbeResult, State
from soc.notify.models import Subscription
from soc.notify.reports import Period

pytestmark = pytest.mark.django_db


@pytest.fixture
def midnight(clock: Clock) -> datetime:
    """It is half past six on a Tuesday; the last midnight."""
    local = timezone.localtime(clock.now)
    tuesday = local + timedelta(days=(1 - local.weekday()) % 7)
    clock.now = tuesday.replace(hour=6, minute=30, second=0, microsecond=0)
    return clock.now.replace(hour=0, minute=0)


def history(midnight: datetime) -> tuple[DirectoryServer, DirectoryServer]:
    good, bad = (
        server("good", site="Oslo"),
        server("=bad", state=State.DOWN, detail="No connection."),
    )
    for n in range(10):
        at = midnight - timedelta(hours=n + 1)
        ProbeResult.objects.create(
            server=good, at=at, outcome="ok", resolve_ms=1, connect_ms=2, search_ms=7 + 2 * n
        )
        ProbeResult.objects.create(server=bad, at=at, outcome="down", error="connect_refused")
    # Not yesterday's.
    ProbeResult.objects.create(server=good, at=midnight, outcome="down")
    return good, bad


def test_the_report_tells_how_often_and_how_fast_each_server_answered(midnight: datetime) -> None:
    history(midnight)
    notice = report.of_period(midnight - timedelta(days=1), midnight)
    assert notice.title == "Directory servers: 2 watched, 1 failing now"
    assert "they answered 50.00 % of 20 probes" in notice.summary
    assert notice.facts["Answered least"] == "=bad:636 0.0 %"
    assert notice.facts["Slowest on average"] == "good:636 19 ms"
    bad, good = csv.DictReader(io.StringIO(notice.csv))
    assert (good["probes"], good["answered_percent"], good["mean_ms"], good["worst_ms"]) == (
        *("10", "100.00"),
        *("19.0", "28.0"),
    )
    assert bad["failures_by_class"] == "connect_refused 10"
    # No formula for a spreadsheet.
    assert not bad["server"].startswith("=")


def test_who_wants_a_report_on_them_gets_one(midnight: datetime) -> None:
    history(midnight)
    period = Period(midnight - timedelta(days=1), midnight)
    for applications, keys in (
        ("", ["ldap_probe"]),
        ("ldap_probe", ["ldap_probe"]),
        ("logons", []),
    ):
        found = report.sections(Subscription(applications=applications), period)
        assert [section.key for section in found] == keys


def test_without_a_probe_there_is_no_report(midnight: datetime) -> None:
    server("dc1")
    period = Period(midnight - timedelta(days=1), midnight)
    assert list(report.sections(Subscription(), period)) == []
