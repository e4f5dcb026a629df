"""The reports on sites' mail: due by each site's own clock, once."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from soc.events.models import Site
from soc.mail_collector import reports
from soc.mail_collector.models import MailSettings, SiteReport, times_of_day
from soc.notify.models import OutboundMail, Subscription

if TYPE_CHECKING:
    from mailing import Clock
    from robots import Stream

TIMES = times_of_day("07:45, 15:45, 23:45")
VANCOUVER, BERLIN = ZoneInfo("America/Vancouver"), ZoneInfo("Europe/Berlin")


@pytest.fixture
def subscription(db: None) -> Subscription:
    return Subscription.objects.create(name="ops", recipients="a@health.internal", csv=True)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "before", "expected"),
    [
        (VANCOUVER, "2026-01-10 15:45:01", "2026-01-10 15:45"),
        (VANCOUVER, "2026-01-10 15:45:00", "2026-01-10 07:45"),
        (VANCOUVER, "2026-01-10 07:44:00", "2026-01-09 23:45"),
        (BERLIN, "2026-01-10 07:00:00", "2026-01-10 06:45"),
        # The clock goes back at 03:00 on 25 October: 07:45 is an hour later for the sun.
        (BERLIN, "2026-10-25 06:46:00", "2026-10-25 06:45"),
        (BERLIN, "2026-10-24 06:46:00", "2026-10-24 05:45"),
    ],
)
def test_reports_are_due_by_the_sites_own_clock(zone: ZoneInfo, before: str, expected: str) -> None:
    moment = reports.last_moment(TIMES, zone, at(before))
    assert moment.astimezone(UTC) == at(expected)


def test_times_of_day_are_read_in_any_order() -> None:
    assert times_of_day("15:45,7:45, 15:45") == [time(7, 45), time(15, 45)]


def test_a_site_gets_its_report_once(
    stream: Stream, clock: Clock, subscription: Subscription
) -> None:
    stream.place("north", "a1")
    clock.now = at("2026-01-10 05:00:00")
    Site.objects.update(time_zone="Europe/Berlin")
    assert reports.send_due(clock.now) == 0
    stream.mail("a1")
    stream.deliver("a1", "other", "1")
    clock.move(seconds=1)
    stream.mail("a1", "send", "FAIL", to=["x@o.internal"], text="No route.")
    stream.watch()
    clock.now = at("2026-01-10 06:45:30")
    # The site of `other` has the same zone: one each.
    assert [reports.send_due(clock.now), reports.send_due(clock.now)] == [2, 0]
    mail = OutboundMail.objects.get(title__contains="north", kind="report")
    assert "Mail at north: 1 failed checks, 1 open alerts" in mail.subject
    assert "From 2026-01-09 23:45 CET to 2026-01-10 07:45 CET." in mail.text
    assert "Checks: 2 passed, 1 failed" in mail.text
    assert "critical: mail1-db1-a1@a.internal: send: No route." in mail.text
    assert "a1,mail1-db1-a1@a.internal,connection,1,0," in mail.csv


def test_after_an_outage_a_site_gets_no_reports_of_long_ago(
    stream: Stream, clock: Clock, subscription: Subscription
) -> None:
    clock.now = at("2026-01-10 05:00:00")
    Site.objects.update(time_zone="Europe/Berlin")
    reports.send_due(clock.now)
    clock.now = at("2026-01-12 10:00:00")
    assert reports.send_due(clock.now) == 0
    clock.now = at("2026-01-12 15:00:00")
    assert reports.send_due(clock.now) == 1


def test_a_report_that_cannot_be_written_stays_due(
    stream: Stream, clock: Clock, subscription: Subscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.now = at("2026-01-10 05:00:00")
    Site.objects.update(time_zone="Europe/Berlin")
    reports.send_due(clock.now)
    clock.now = at("2026-01-10 06:46:00")
    with monkeypatch.context() as broken:
        broken.setattr(reports, "of", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            reports.send_due(clock.now)
    assert reports.send_due(clock.now) == 1


def test_the_times_are_a_setting_that_works_at_once(
    stream: Stream, clock: Clock, subscription: Subscription
) -> None:
    clock.now = at("2026-01-10 05:00:00")
    Site.objects.update(time_zone="Europe/Berlin")
    reports.send_due(clock.now)
    MailSettings.objects.update(report_times="06:30")
    clock.now = at("2026-01-10 05:31:00")
    assert reports.send_due(clock.now) == 1
    assert SiteReport.objects.get().reported_until == at("2026-01-10 05:30:00")


def test_who_does_not_want_the_mail_collectors_mail_gets_no_report(
    stream: Stream, clock: Clock, subscription: Subscription
) -> None:
    Subscription.objects.update(applications="ssl_certs")
    clock.now = at("2026-01-10 05:00:00")
    reports.send_due(clock.now)
    clock.move(days=1)
    assert reports.send_due(clock.now + timedelta(minutes=1)) == 0
