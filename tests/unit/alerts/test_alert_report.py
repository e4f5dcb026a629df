"""The reports of subscriptions."""

from __future__ import annotations

import csv
import io
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from soc.alerts import actions, tasks
from soc.alerts import report as alert_report
from soc.alerts.models import Alert, Rule
from soc.core.severity import Severity
from soc.notify.models import OutboundMail, Subscription

if TYPE_CHECKING:
    from conftest import Report
    from mailing import Clock

pytestmark = pytest.mark.django_db

DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def nobody_wakes_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker listens in a unit test."""
    monkeypatch.setattr(tasks, "wake", lambda: None)


def test_a_report_says_what_happened(
    rule: Rule, subscription: Subscription, report: Report, clock: Clock
) -> None:
    report("critical", subject="bot-1", site="north")
    report("warning", subject="=cmd()", summary="-1")
    actions.acknowledge(Alert.objects.filter(subject__name="bot-1"), "ann")
    report("ok", subject="=cmd()")
    clock.move(seconds=1)
    notice = alert_report.of(subscription, clock.now - DAY, clock.now)
    assert notice is not None
    assert notice.title == "Alerts: 2 opened, 1 resolved, 1 open"
    assert notice.severity == Severity.CRITICAL
    assert notice.facts["critical: bot-1"].endswith("acknowledged by ann.")
    assert notice.facts["Time to acknowledge (median)"] == "1 min"
    rows = list(csv.DictReader(io.StringIO(notice.csv)))
    assert [row["subject"] for row in rows] == ["bot-1", "'=cmd()"]
    assert (rows[0]["site"], rows[1]["state"], rows[1]["summary"]) == ("north", "resolved", "'-1")


def test_a_report_has_what_its_subscription_wants(
    rule: Rule, subscription: Subscription, report: Report, clock: Clock
) -> None:
    report("warning")
    period = (clock.now - DAY, clock.now + DAY)
    subscription.minimum_severity = Severity.CRITICAL
    assert alert_report.of(subscription, *period) is None
    subscription.minimum_severity = Severity.INFO
    subscription.applications = "ssl_certs"
    assert alert_report.of(subscription, *period) is None


def test_what_ends_while_a_report_is_written_is_of_the_next_one(
    rule: Rule, subscription: Subscription, report: Report, clock: Clock
) -> None:
    report("critical")
    until = clock.now + timedelta(seconds=1)
    report("ok")
    first = alert_report.of(subscription, until - DAY, until)
    second = alert_report.of(subscription, until, until + DAY)
    assert first is not None
    assert second is not None
    assert first.title == "Alerts: 1 opened, 0 resolved, 1 open"
    assert ",firing," in first.csv
    assert second.title == "Alerts: 0 opened, 1 resolved, 0 open"


def test_two_rules_on_one_target_are_two_rows(
    rule: Rule, subscription: Subscription, report: Report, clock: Clock
) -> None:
    Rule.objects.create(application="tests", name="other")
    for name in ("works", "other"):
        report("critical", rule=name, summary=f"About {name}.")
    report("critical", subject="bot-2")
    clock.move(minutes=1)
    notice = alert_report.of(subscription, clock.now - DAY, clock.now)
    assert notice is not None
    rows = {name: text.partition(" Since")[0] for name, text in notice.facts.items()}
    assert rows == {
        "critical: bot-1 (tests/works)": "About works.",
        "critical: bot-1 (tests/other)": "About other.",
        "critical: bot-2": "It is critical.",
    }


def test_long_names_that_begin_alike_are_two_rows(
    rule: Rule, subscription: Subscription, report: Report, clock: Clock
) -> None:
    for last in "ab":
        report("critical", subject="n" * 150 + last)
    clock.move(minutes=1)
    notice = alert_report.of(subscription, clock.now - DAY, clock.now)
    assert notice is not None
    assert len(notice.facts) == 2


def test_what_was_over_before_is_not_reported(
    rule: Rule, subscription: Subscription, report: Report, clock: Clock
) -> None:
    report("critical")
    report("ok")
    clock.move(days=2)
    assert alert_report.of(subscription, clock.now - DAY, clock.now) is None


@pytest.mark.parametrize(("when_empty", "mails"), [(False, 0), (True, 1)])
def test_nothing_is_said_when_there_is_nothing_to_say_unless_asked_for(
    subscription: Subscription, clock: Clock, when_empty: bool, mails: int
) -> None:
    Subscription.objects.update(
        report="daily", report_when_empty=when_empty, next_report_at=clock.now
    )
    clock.move(seconds=1)
    for _ in range(2):
        tasks.send_reports()
    assert OutboundMail.objects.count() == mails


def test_a_report_goes_out_once_a_day(
    rule: Rule, subscription: Subscription, report: Report, clock: Clock
) -> None:
    Subscription.objects.update(report="daily", next_report_at=clock.now + timedelta(hours=1))
    report("critical")
    clock.move(hours=1)
    for _ in range(3):
        tasks.send_reports()
    assert OutboundMail.objects.filter(kind="report").count() == 1
    clock.move(days=1)
    tasks.send_reports()
    assert OutboundMail.objects.filter(kind="report").count() == 2
