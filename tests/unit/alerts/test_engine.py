"""From reported conditions to alerts in the database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from soc.alerts import actions, engine, rounds
from soc.alerts.conditions import Condition
from soc.alerts.engine import Outcome, Result, UnknownRule
from soc.alerts.models import OPEN, Alert, AlertEvent, Rule, Silence, Subject
from soc.core.severity import Severity
from soc.notify.models import OutboundMail, Subscription

if TYPE_CHECKING:
    from conftest import Report
    from mailing import Clock

pytestmark = pytest.mark.django_db


def timeline(alert: Alert) -> list[str]:
    return list(alert.events.values_list("kind", flat=True))


def subjects_of_mails() -> list[str]:
    return list(OutboundMail.objects.order_by("created_at").values_list("subject", flat=True))


def test_trouble_opens_an_alert_and_mails_it_once(
    rule: Rule, subscription: Subscription, report: Report
) -> None:
    assert report("critical", facts={"Code": 7}, link="/x", site="north").outcome == "fired"
    assert report("critical") == Result(Outcome.UNCHANGED)
    alert = Alert.objects.get()
    assert (alert.state, alert.severity, alert.count) == ("firing", Severity.CRITICAL, 2)
    assert (alert.facts, alert.site, str(alert)) == ({"Code": "7"}, "north", "tests/works: bot-1")
    assert timeline(alert) == ["fired"]
    mail = OutboundMail.objects.get()
    assert mail.subject == "CRITICAL: bot-1: It is critical (local)"
    assert f"/alerts/{alert.pk}/" in mail.text


def test_its_end_closes_the_alert_and_tells_those_who_were_told(
    rule: Rule, subscription: Subscription, report: Report
) -> None:
    report("critical")
    OutboundMail.objects.update(state=OutboundMail.State.SENT, next_try_at=None)
    assert report("ok") == Result("resolved", mails=1)
    alert = Alert.objects.get()
    assert (alert.state, alert.open_key) == ("resolved", None)
    assert subjects_of_mails()[1] == "RESOLVED: bot-1: It is critical (local)"
    assert Subject.objects.get().alert is None


def test_trouble_that_is_over_before_its_mail_went_out_makes_no_mail(
    rule: Rule, subscription: Subscription, report: Report
) -> None:
    report("critical")
    assert report("ok").mails == 0
    assert [mail.state for mail in OutboundMail.objects.all()] == ["withdrawn"]


def test_the_next_trouble_is_another_alert(rule: Rule, report: Report) -> None:
    for severity in ("critical", "ok", "warning"):
        report(severity)
    assert [alert.state for alert in Alert.objects.order_by("pk")] == ["resolved", "firing"]
    assert Alert.objects.filter(OPEN).get().open_key == Subject.objects.get().fingerprint


def test_what_gets_worse_is_mailed_and_what_gets_better_is_not(
    rule: Rule, subscription: Subscription, report: Report
) -> None:
    assert [report(word).mails for word in ("warning", "critical", "warning")] == [1, 1, 0]
    assert timeline(Alert.objects.get()) == ["fired", "worse", "better"]


def test_a_report_that_is_not_newer_changes_nothing(
    rule: Rule, report: Report, clock: Clock
) -> None:
    report("critical")
    assert report("ok", observed_at=clock.now).outcome == Outcome.LATE
    assert report("ok", observed_at=clock.now - timedelta(minutes=5)).outcome == Outcome.LATE
    assert Alert.objects.get().state == "firing"


def test_what_was_observed_long_ago_is_known_but_opens_nothing(
    rule: Rule, subscription: Subscription, report: Report, clock: Clock
) -> None:
    long_ago = clock.now - timedelta(hours=1)
    assert report("critical", observed_at=long_ago).outcome == Outcome.STALE
    subject = Subject.objects.get()
    assert (subject.severity, subject.observed_at) == (Severity.CRITICAL, long_ago)
    assert not Alert.objects.exists()
    assert not OutboundMail.objects.exists()


def test_ten_thousand_stale_conditions_open_nothing_and_mail_nothing(
    rule: Rule, subscription: Subscription, clock: Clock
) -> None:
    start = clock.now - timedelta(days=1)
    replayed = [
        Condition("tests", "works", f"bot-{n % 100}", Severity.CRITICAL if n % 3 else Severity.OK,
                  start + timedelta(seconds=n))
        for n in range(10_000)
    ]  # fmt: skip
    results = engine.report(replayed)
    assert len(results) == 10_000
    assert {result.mails for result in results} == {0}
    assert {str(result.outcome) for result in results} == {"stale", "unchanged"}
    assert not Alert.objects.exists()
    assert not OutboundMail.objects.exists()


def test_a_stale_good_report_still_ends_what_fires(
    rule: Rule, report: Report, clock: Clock
) -> None:
    report("critical")
    later = clock.now + timedelta(minutes=5)
    clock.move(hours=2)
    assert report("ok", observed_at=later).outcome == "resolved"


def test_a_clock_that_is_ahead_is_not_believed(rule: Rule, report: Report, clock: Clock) -> None:
    report("critical", observed_at=clock.now + timedelta(days=365))
    assert report("ok").outcome == "resolved"


def test_what_was_seen_while_our_clock_was_ahead_outdates_nothing(
    rule: Rule, report: Report, clock: Clock
) -> None:
    clock.move(days=1)
    report("ok")
    clock.move(days=-1)
    assert report("critical").outcome == "fired"
    assert report("ok").outcome == "resolved"


def test_a_disabled_rule_opens_nothing(rule: Rule, report: Report) -> None:
    Rule.objects.update(enabled=False)
    assert report("critical").outcome == Outcome.DISABLED
    assert not Alert.objects.exists()


def test_an_unknown_rule_is_refused_with_the_known_ones(rule: Rule, report: Report) -> None:
    with pytest.raises(UnknownRule, match=r"no rule tests/other; the rules are .*tests/works"):
        report("critical", rule="other")
    good = Condition("tests", "works", "a", Severity.CRITICAL, datetime.now(UTC))
    bad = Condition("tests", "other", "b", Severity.CRITICAL, datetime.now(UTC))
    with pytest.raises(UnknownRule):
        engine.report([good, bad])
    assert not Subject.objects.exists()


@pytest.mark.parametrize("subject", ["", "  \n", "\0"])
def test_a_condition_needs_a_subject(rule: Rule, report: Report, subject: str) -> None:
    with pytest.raises(ValueError, match="has no subject"):
        report("critical", subject=subject)


def test_a_condition_needs_a_time_zone(rule: Rule, report: Report) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        report("critical", observed_at=datetime(2026, 1, 1))


def test_a_subject_is_one_line_and_stays_itself_when_it_is_too_long(
    rule: Rule, report: Report
) -> None:
    report("critical", subject="bot\r\nBcc: x@y.internal\t 1")
    assert Subject.objects.get().name == "bot Bcc: x@y.internal 1"
    for end in "ab":
        report("critical", subject="x" * 300 + end)
    long = Subject.objects.filter(name__startswith="xxx").values_list("name", flat=True)
    assert len(set(long)) == 2
    assert {len(name) for name in long} == {200}


def test_facts_of_any_kind_and_size_are_kept_short(
    rule: Rule, subscription: Subscription, report: Report
) -> None:
    report("critical", facts={
        "big": "x" * 5_000_000, "html": "<script>", "list": [1, None], "nul": "a\0b\ud800",
    })  # fmt: skip
    facts = Alert.objects.get().facts
    assert facts["big"].endswith("… (5,000,000 characters in all)")
    assert len(facts["big"]) < 2100
    assert (facts["list"], facts["nul"]) == ("[1, null]", "a b ")
    mail = OutboundMail.objects.get()
    assert "&lt;script&gt;" in mail.html
    assert "<script>" not in mail.html
    report("ok")
    report("critical", facts={f"{n}": n for n in range(80)})
    assert Alert.objects.filter(OPEN).get().facts["…"] == "30 more facts were left out."


def test_a_line_break_in_a_summary_adds_no_header(
    rule: Rule, subscription: Subscription, report: Report
) -> None:
    report("critical", summary="Down\r\nBcc: thief@evil.internal")
    (subject,) = subjects_of_mails()
    assert "\n" not in subject
    assert "\r" not in subject


def test_a_silence_keeps_an_alert_down(
    rule: Rule, subscription: Subscription, report: Report, clock: Clock
) -> None:
    Silence.objects.create(
        comment="work", subject="bot-*", starts_at=clock.now, ends_at=clock.now + timedelta(hours=1)
    )
    assert report("critical") == Result("suppressed")
    assert Alert.objects.get().suppressed_by == "Silence: work"
    clock.move(hours=1)
    assert report("critical") == Result("fired", mails=1)
    assert Alert.objects.get().suppressed_by == ""


@pytest.mark.parametrize(
    "matcher", [{"application": "other"}, {"site": "south"}, {"subject": "bot-2"}, {"subject": "b"}]
)
def test_a_silence_is_about_what_it_says(
    rule: Rule, report: Report, clock: Clock, matcher: dict[str, str]
) -> None:
    Silence.objects.create(comment="work", ends_at=clock.now + timedelta(hours=1), **matcher)
    assert report("critical", site="north").outcome == "fired"


def test_a_parent_in_trouble_hides_its_children(
    rule: Rule, subscription: Subscription, report: Report
) -> None:
    Rule.objects.create(application="tests", name="site")
    report("critical", rule="site", subject="north")
    assert report("critical", parent=("site", "north")) == Result("suppressed")
    child = Alert.objects.get(subject__name="bot-1")
    assert child.suppressed_by == "tests/site: north is failing"
    report("ok", rule="site", subject="north")
    assert report("critical", parent=("site", "north")).outcome == "fired"


def test_a_parent_that_is_told_of_only_now_hides_its_child_at_once(
    rule: Rule, report: Report
) -> None:
    Rule.objects.create(application="tests", name="site")
    report("ok")
    report("critical", rule="site", subject="north")
    assert report("critical", parent=("site", "north")).outcome == "suppressed"


@pytest.mark.usefixtures("subscription")
def test_what_was_acknowledged_and_gets_worse_is_quiet_in_a_silence(
    rule: Rule, report: Report, clock: Clock
) -> None:
    report("warning")
    actions.acknowledge(Alert.objects.all(), "ann")
    Silence.objects.create(comment="work", ends_at=clock.now + timedelta(hours=1))
    assert report("warning").outcome == Outcome.UNCHANGED
    assert report("critical") == Result("suppressed")
    clock.move(hours=1)
    assert report("critical") == Result("fired", mails=1)


def test_a_parent_that_only_waits_hides_nothing(rule: Rule, report: Report) -> None:
    Rule.objects.create(application="tests", name="site", needed=2, window=2)
    report("critical", rule="site", subject="north")
    assert report("critical", parent=("site", "north")).outcome == "fired"


def test_a_severity_to_and_fro_makes_few_mails(
    rule: Rule, subscription: Subscription, report: Report
) -> None:
    mails = [report(word).mails for word in ("warning", "critical") * 15]
    assert sum(mails) == 3
    assert Alert.objects.get().state == "flapping"


def test_an_acknowledgement_outlasts_a_dip(
    rule: Rule, subscription: Subscription, report: Report
) -> None:
    report("critical")
    actions.acknowledge(Alert.objects.all(), "ann")
    assert [report(word).mails for word in ("warning", "critical")] == [0, 0]
    alert = Alert.objects.get()
    assert (alert.state, alert.severity) == ("acknowledged", Severity.CRITICAL)
    assert timeline(alert) == ["fired", "acknowledged", "better", "returned"]


def test_what_its_reminder_calls_a_warning_is_news_when_it_is_critical_again(
    rule: Rule, subscription: Subscription, report: Report, clock: Clock
) -> None:
    Rule.objects.update(remind_warning=1, remind_critical=1)
    for word in ("critical", "warning"):
        report(word)
    clock.move(minutes=2)
    assert rounds.run(clock.now) == 1
    assert report("critical") == Result("worse", mails=1)


def test_a_reported_fact_does_not_stand_in_the_place_of_ours(
    rule: Rule, subscription: Subscription, report: Report
) -> None:
    report("critical", facts={"Since": "1970", "Subject": "evil", "Page": "x", "Disk": "sda"},
           link="/robots/bot-1/")  # fmt: skip
    text = OutboundMail.objects.get().text
    for line in ("Subject: bot-1", "Subject (reported): evil", "Since (reported): 1970",
                 "Page (reported): x", "Disk: sda", "Page: https://localhost:"):  # fmt: skip
        assert f"\n{line}" in text
    assert "Since: 20" in text
    assert "/robots/bot-1/" in text


def test_flapping_makes_one_mail_in_and_one_out(
    rule: Rule, subscription: Subscription, report: Report, clock: Clock
) -> None:
    for _ in range(5):
        OutboundMail.objects.update(state=OutboundMail.State.SENT, next_try_at=None)
        report("critical")
        OutboundMail.objects.update(state=OutboundMail.State.SENT, next_try_at=None)
        report("ok")
    assert sum("FLAPPING" in subject for subject in subjects_of_mails()) == 1
    before = OutboundMail.objects.count()
    clock.move(minutes=40)
    assert report("ok").outcome == "resolved"
    assert subjects_of_mails()[before:] == ["RESOLVED: bot-1: It is critical (local)"]


def test_a_writer_that_was_outrun_sees_what_the_other_did(
    rule: Rule, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other writer gets in between reading and writing."""
    read, raced = engine._read, []

    def slow(fingerprints: list[str]) -> dict[str, Subject]:
        found = read(fingerprints)
        if found and not raced:
            raced.append(True)
            report("critical")
        return found

    monkeypatch.setattr(engine, "_read", slow)
    assert report("critical").outcome in (Outcome.LATE, Outcome.UNCHANGED)
    assert Alert.objects.count() == 1
    assert AlertEvent.objects.count() == 1


def test_of_those_written_together_one_that_was_outrun_is_read_again(
    rule: Rule, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other writer gets in between reading three subjects and writing them at once."""
    note, later = engine._note, clock.now
    before = later - timedelta(seconds=30)

    def slow(news: engine._News) -> Iterator[Subject]:
        monkeypatch.setattr(engine, "_note", note)
        engine.report([Condition("tests", "works", "bot-1", Severity.CRITICAL, before)])
        return note(news)

    monkeypatch.setattr(engine, "_note", slow)
    results = engine.report(
        Condition("tests", "works", name, Severity.OK, later)
        for name in ("bot-1", "bot-2", "bot-3")
    )
    assert [result.outcome for result in results] == ["resolved", "unchanged", "unchanged"]
    assert Alert.objects.get().state == "resolved"
    found = Subject.objects.values_list("observed_at", "severity", "revision", "recent")
    assert set(found) == {(later, Severity.OK, 2, ""), (later, Severity.OK, 1, "0")}


def test_first_good_reports_cost_the_same_however_many(rule: Rule, clock: Clock) -> None:
    def statements(kind: str, subjects: int) -> int:
        with CaptureQueriesContext(connection) as captured:
            engine.report(
                Condition("tests", "works", f"{kind}-{n}", Severity.OK, clock.now)
                for n in range(subjects)
            )
        return len(captured)

    assert statements("few", 2) == statements("many", 50)


def test_unchanged_reports_cost_four_statements_however_many(
    rule: Rule,
    clock: Clock,
    django_assert_max_num_queries: Callable[[int], AbstractContextManager[object]],
) -> None:
    def round_of_reports() -> list[Result]:
        clock.move(minutes=1)
        return engine.report(
            Condition("tests", "works", f"bot-{n}", severity, clock.now)
            for n, severity in enumerate([Severity.OK, Severity.CRITICAL] * 100)
        )

    round_of_reports()
    with django_assert_max_num_queries(3 + 4):
        assert {result.outcome for result in round_of_reports()} == {Outcome.UNCHANGED}
    assert set(Alert.objects.values_list("count", flat=True)) == {2}


def test_the_same_subject_twice_in_one_call_lives_through_both(rule: Rule, clock: Clock) -> None:
    results = engine.report(
        Condition("tests", "works", "bot-1", severity, clock.now + timedelta(seconds=n))
        for n, severity in enumerate([Severity.CRITICAL, Severity.OK])
    )
    assert [result.outcome for result in results] == ["fired", "resolved"]


def test_a_timeline_is_never_rewritten(rule: Rule, report: Report) -> None:
    report("critical")
    event = AlertEvent.objects.get()
    with pytest.raises(TypeError):
        event.save()


@pytest.mark.usefixtures("subscription", "rule")
def test_the_mail_about_an_end_does_not_claim_what_was_true_before(report: Report) -> None:
    report("critical", summary="It is silent. Look at it.")
    OutboundMail.objects.update(state="sent", next_try_at=None)
    report("ok")
    last = OutboundMail.objects.get(status="resolved")
    assert "It is over. Last reported: It is silent. Look at it." in last.text
