"""Reports: when they are due, once, whatever the clocks and the workers do."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

import pytest
from django.utils import timezone
from django_celery_beat.models import PeriodicTask

from mailing import NOTICE, Clock, FakeRelay, states
from soc.events.models import Site
from soc.ldap_probe.models import DirectoryServer, ProbeResult
from soc.notify import delivery, outbox, reports, tidying
from soc.notify.models import LIFE_OF_A_REPORT, OutboundMail, Subscription

Report = Subscription.Report


def first(report: str, at: time, now: str, zone: str = "UTC") -> str:
    with timezone.override(zone):
        found = reports.first_after(
            Subscription(report=report, report_at=at), datetime.fromisoformat(f"{now}+00:00")
        )
    assert found
    return found.astimezone(UTC).strftime("%Y-%m-%dT%H:%M")


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-03-04T06:59", "2026-03-04T07:00"),
        ("2026-03-04T07:00", "2026-03-05T07:00"),
        ("2026-12-31T08:00", "2027-01-01T07:00"),
    ],
)
def test_a_daily_report(now: str, expected: str) -> None:
    assert first(Report.DAILY, time(7), now) == expected


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-03-02T06:59", "2026-03-02T07:00"),
        ("2026-03-02T07:00", "2026-03-09T07:00"),
        ("2026-03-08T23:59", "2026-03-09T07:00"),
    ],
)
def test_a_weekly_report_comes_on_monday(now: str, expected: str) -> None:
    assert first(Report.WEEKLY, time(7), now) == expected


@pytest.mark.parametrize(
    ("now", "at", "expected"),
    [
        ("2026-03-28T12:00", time(7), "2026-03-29T05:00"),
        ("2026-03-28T12:00", time(2, 30), "2026-03-29T01:30"),
        ("2026-10-24T12:00", time(7), "2026-10-25T06:00"),
        ("2026-10-25T00:29", time(2, 30), "2026-10-25T00:30"),
        ("2026-10-25T00:31", time(2, 30), "2026-10-26T01:30"),
    ],
)
def test_a_report_keeps_its_local_time_when_the_clocks_change(
    now: str, at: time, expected: str
) -> None:
    """And where the clock is put back, it comes once."""
    assert first(Report.DAILY, at, now, "Europe/Berlin") == expected


def test_no_report_is_never_due() -> None:
    assert reports.first_after(Subscription(), timezone.now()) is None


@pytest.fixture
def reported(subscription: Subscription) -> Subscription:
    subscription.report = Report.DAILY
    subscription.save()
    return subscription


def test_a_report_is_due_once(db: None, reported: Subscription, clock: Clock) -> None:
    assert list(reports.due(clock.now)) == [], "the first is planned, not sent at once"
    clock.move(days=1)
    assert list(reports.due(clock.now)) == [reported]
    assert list(reports.due(clock.now)) == []
    clock.move(days=30)
    assert list(reports.due(clock.now)) == [reported], "one after a long outage"


def covered(zone: str, times: list[str], **values: object) -> list[tuple[str, str]]:
    """Return the periods of the reports of a subscription that is looked at at some times."""
    Subscription.objects.update(**values)
    periods = []
    with timezone.override(zone):
        for moment in times:
            now = datetime.fromisoformat(f"{moment}+00:00")
            for subscription in reports.due(now):
                period = reports.period(subscription, now)
                periods.append(
                    tuple(f"{end.astimezone(UTC):%dT%H:%M}" for end in (period.since, period.until))
                )
    return periods


def test_reports_cover_every_hour_where_the_clocks_change(db: None, reported: Subscription) -> None:
    """25 hours on the day on which Berlin's clocks go back, 23 where they go on."""
    autumn = ["2026-10-23T05:00", "2026-10-24T05:00", "2026-10-25T06:00", "2026-10-26T06:00"]
    assert covered("Europe/Berlin", autumn) == [
        ("23T05:00", "24T05:00"), ("24T05:00", "25T06:00"), ("25T06:00", "26T06:00"),
    ]  # fmt: skip
    spring = ["2026-03-27T06:00", "2026-03-28T06:00", "2026-03-29T05:00", "2026-03-30T05:00"]
    again = {"next_report_at": None, "reported_until": None}
    assert covered("Europe/Berlin", spring, **again) == [
        ("27T06:00", "28T06:00"), ("28T06:00", "29T05:00"), ("29T05:00", "30T05:00"),
    ]  # fmt: skip


def test_the_report_after_an_outage_covers_all_of_it(db: None, reported: Subscription) -> None:
    times = ["2026-03-02T05:00", "2026-03-02T07:00", "2026-03-05T09:30", "2026-03-06T07:01"]
    assert covered("UTC", times) == [
        ("01T07:00", "02T07:00"), ("02T07:00", "05T07:00"), ("05T07:00", "06T07:00"),
    ]  # fmt: skip


def test_a_report_at_another_time_begins_where_the_last_one_ended(
    db: None, reported: Subscription
) -> None:
    assert covered("UTC", ["2026-03-02T05:00", "2026-03-02T07:00"])
    later = datetime(2026, 3, 2, 20, tzinfo=UTC)
    assert covered("UTC", ["2026-03-02T20:00"], report_at=time(20), next_report_at=later) == [
        ("02T07:00", "02T20:00")
    ]


def test_further_times_of_a_day_are_reports_of_their_own(db: None, reported: Subscription) -> None:
    looks = ["2026-03-02T05:00", "2026-03-02T07:00", "2026-03-02T15:45", "2026-03-03T07:00"]
    assert covered("UTC", looks, report_also_at="23:45, 15:45") == [
        ("01T23:45", "02T07:00"), ("02T07:00", "02T15:45"), ("02T15:45", "03T07:00"),
    ]  # fmt: skip


def test_every_applications_report_keeps_the_clock_of_the_subscription(
    db: None, reported: Subscription, clock: Clock
) -> None:
    """Those of directories came at 06:30 and those of mail to who had not asked for one."""
    assert not PeriodicTask.objects.filter(
        task__in=["soc.ldap_probe.tasks.send_reports", "soc.mail_collector.tasks.send_site_reports"]
    )
    Subscription.objects.update(report_at=time(20))
    Subscription.objects.create(name="unasked", recipients="a@b.test")
    Site.objects.create(name="north")
    ProbeResult.objects.create(
        server=DirectoryServer.objects.create(host="dc1"), at=clock.now, outcome="ok"
    )
    reports.send_due(clock.now)
    found = set()
    for _ in range(48):
        clock.move(hours=1)
        reports.send_due(clock.now)
        for mail in OutboundMail.objects.filter(kind="report"):
            found.add((mail.subscription.name, mail.title.split()[0], mail.created_at))
        OutboundMail.objects.all().delete()
    assert {(name, title) for name, title, _ in found} == {
        (reported.name, "Directory"), (reported.name, "Mail"),
    }  # fmt: skip
    assert {timezone.localtime(at).hour for _, _, at in found} == {20}


def test_two_workers_share_what_is_due(db: None, reported: Subscription, clock: Clock) -> None:
    list(reports.due(clock.now))
    clock.move(days=1)
    one, other = reports.due(clock.now), reports.due(clock.now)
    assert [*one, *other] == [reported]


def test_switched_off_means_no_report(db: None, reported: Subscription, clock: Clock) -> None:
    list(reports.due(clock.now))
    Subscription.objects.update(enabled=False)
    clock.move(days=2)
    assert list(reports.due(clock.now)) == []


def test_a_report_is_not_held_and_has_twelve_hours(
    db: None, reported: Subscription, relay: FakeRelay, clock: Clock
) -> None:
    Subscription.objects.update(
        quiet_from=time(0), quiet_until=time(23, 59, 59), quiet_breakthrough=None,
        digest_minutes=60, storm_limit=1,
    )  # fmt: skip
    reported.refresh_from_db()
    assert outbox.enqueue_report(NOTICE, "report:2026-03-02", reported) == 1
    assert outbox.enqueue_report(NOTICE, "report:2026-03-02", reported) == 0
    assert outbox.enqueue_report(NOTICE, "report:2026-03-03", reported) == 1
    mail = OutboundMail.objects.all()[0]
    assert (mail.kind, mail.expires_at) == ("report", clock.now + LIFE_OF_A_REPORT)
    assert delivery.send_due() == 2
    assert states() == {"sent": 2}


def test_a_report_that_waits_expires_after_twelve_hours(
    db: None, reported: Subscription, clock: Clock
) -> None:
    outbox.enqueue_report(NOTICE, "report:2026-03-02", reported)
    outbox.enqueue(NOTICE, "occasion")
    clock.move(hours=12)
    clock.now -= timedelta(seconds=1)
    tidying.tidy()
    assert states() == {"expired": 1, "queued": 1}
    clock.move(seconds=1)
    tidying.tidy()
    assert states() == {"expired": 2}
