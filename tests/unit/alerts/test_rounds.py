"""What happens to alerts by the clock, and what operators do with them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from soc.alerts import actions, engine, own, rounds
from soc.alerts.models import OPEN, Alert, EscalationStep, Rule, Silence, Subject
from soc.beat.models import Instance
from soc.core.severity import Severity
from soc.notify import destinations, relay, smtp
from soc.notify.models import OutboundMail, Subscription

if TYPE_CHECKING:
    from conftest import Report
    from mailing import Clock

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def everybody(rule: Rule, subscription: Subscription) -> None:
    """All of these tests have a rule and a subscriber."""


def last_recipient() -> str:
    return str(OutboundMail.objects.latest("created_at").recipients[0])


def last_subject() -> str:
    mail = OutboundMail.objects.order_by("-created_at").first()
    return mail.subject if mail else ""


def events() -> list[str]:
    return list(Alert.objects.get().events.values_list("kind", flat=True))


def test_rounds_without_alerts_do_nothing(clock: Clock) -> None:
    assert rounds.run(clock.now) == 0


def test_a_critical_is_reminded_of_at_its_interval(report: Report, clock: Clock) -> None:
    report("critical")
    assert rounds.run(clock.move(minutes=239)) == 0
    assert rounds.run(clock.move(minutes=1)) == 1
    assert rounds.run(clock.move(minutes=1)) == 0
    assert last_subject() == "STILL CRITICAL: bot-1: It is critical (local)"
    assert rounds.run(clock.move(minutes=240)) == 1


def test_nobody_is_reminded_of_what_somebody_acknowledged(report: Report, clock: Clock) -> None:
    report("critical")
    assert actions.acknowledge(Alert.objects.all(), "ann", "on it") == 1
    assert rounds.run(clock.move(days=2)) == 0
    alert = Alert.objects.get()
    assert (alert.state, alert.acknowledged_by, alert.note) == ("acknowledged", "ann", "on it")
    assert events() == ["fired", "acknowledged"]


def test_a_severity_without_an_interval_is_not_reminded_of(report: Report, clock: Clock) -> None:
    report("info")
    assert rounds.run(clock.move(days=30)) == 0


def test_an_alert_that_nobody_acknowledges_is_escalated_once(
    rule: Rule, report: Report, clock: Clock
) -> None:
    boss = Subscription.objects.create(
        name="boss", recipients="b@health.internal", applications="core"
    )
    EscalationStep.objects.create(rule=rule, after=30, subscription=boss)
    report("critical")
    assert rounds.run(clock.move(minutes=29)) == 0
    assert rounds.run(clock.move(minutes=2)) == 1
    assert rounds.run(clock.move(minutes=2)) == 0
    mail = OutboundMail.objects.get(subscription=boss)
    assert mail.subject == "NOT ACKNOWLEDGED, CRITICAL: bot-1: It is critical (local)"


def test_escalation_goes_on_step_by_step_until_somebody_acknowledges(
    rule: Rule, report: Report, clock: Clock
) -> None:
    names = ("first", "second", "third")
    for number, name in enumerate(names):
        to = Subscription.objects.create(
            name=name, recipients=f"{name}@health.internal", applications="core"
        )
        EscalationStep.objects.create(rule=rule, after=(number + 1) * 10, subscription=to)
    report("critical")
    start = clock.now
    seen = []
    for minute in range(1, 29):
        clock.move(minutes=1)
        if rounds.run(clock.now):
            seen.append((minute, last_recipient()))
    assert seen == [(10, "first@health.internal"), (20, "second@health.internal")]
    actions.acknowledge(Alert.objects.all(), "jo")
    clock.move(minutes=10)
    assert rounds.run(clock.now) == 0
    assert clock.now > start
    texts = Alert.objects.get().events.filter(kind="escalated").values_list("text", flat=True)
    assert list(texts) == ["first", "second"]


def test_steps_at_one_time_are_all_done_and_what_gets_worse_begins_again(
    rule: Rule, report: Report, clock: Clock
) -> None:
    for name in ("first", "second"):
        to = Subscription.objects.create(
            name=name, recipients=f"{name}@health.internal", applications="core"
        )
        EscalationStep.objects.create(rule=rule, after=10, subscription=to)
    report("warning")
    clock.move(minutes=10)
    assert [rounds.run(clock.now) for _ in range(3)] == [1, 1, 0]
    report("critical")
    clock.move(minutes=10)
    assert [rounds.run(clock.now) for _ in range(3)] == [1, 1, 0]


def test_steps_that_are_taken_away_or_switched_off_escalate_to_nobody(
    rule: Rule, report: Report, clock: Clock
) -> None:
    to = Subscription.objects.create(name="boss", recipients="b@health.internal", enabled=False)
    step = EscalationStep.objects.create(rule=rule, after=10, subscription=to)
    report("critical")
    clock.move(minutes=10)
    assert rounds.run(clock.now) == 0
    assert Alert.objects.get().events.last().unnotified == {"it is disabled": ["boss"]}
    report("critical", subject="bot-2")
    step.delete()
    clock.move(minutes=10)
    assert rounds.run(clock.now) == 0
    assert Alert.objects.get(subject__name="bot-2").escalate_at is None


def test_a_silence_that_begins_hides_what_fires_and_its_end_brings_it_back(
    report: Report, clock: Clock
) -> None:
    report("critical")
    assert actions.silence(Alert.objects.all(), "ann", "new disk", timedelta(hours=1)) == 1
    assert [mail.state for mail in OutboundMail.objects.all()] == ["withdrawn"]
    assert rounds.run(clock.now) == 0
    alert = Alert.objects.get()
    assert (alert.state, alert.suppressed_by) == ("suppressed", "Silence: new disk")
    assert rounds.run(clock.move(minutes=59)) == 0
    assert rounds.run(clock.move(minutes=2)) == 1
    assert Alert.objects.get().state == "firing"
    assert events() == ["fired", "suppressed", "fired"]


def test_a_silence_that_is_written_in_advance_hides_what_fires_when_it_begins(
    report: Report, clock: Clock
) -> None:
    report("critical")
    begin = clock.now + timedelta(hours=1)
    Silence.objects.create(comment="x", starts_at=begin, ends_at=begin + timedelta(hours=1))
    rounds.run(clock.move(minutes=59))
    assert Alert.objects.get().state == "firing"
    rounds.run(clock.move(minutes=1))
    assert Alert.objects.get().state == "suppressed"


def test_a_silence_by_hand_is_about_one_subject_only(report: Report) -> None:
    report("critical", subject="bot-[1]*")
    actions.silence(Alert.objects.all(), "ann", "x", timedelta(hours=1))
    silence = Silence.objects.get()
    rule = Rule.objects.get(application="tests")
    assert silence.matches(rule, "bot-[1]*", "")
    assert not silence.matches(rule, "bot-1", "")
    assert not silence.matches(rule, "bot-[1]x", "")


def test_a_child_waits_for_its_own_report_when_its_parent_is_well_again(
    report: Report, clock: Clock
) -> None:
    Rule.objects.create(application="tests", name="site")
    report("critical", parent=("site", "north"))
    report("critical", rule="site", subject="north")
    rounds.run(clock.now)
    child = Alert.objects.filter(subject__name="bot-1")
    assert child.get().state == "suppressed"
    report("ok", rule="site", subject="north")
    rounds.run(clock.move(minutes=1))
    assert child.get().state == "suppressed"
    assert report("ok", parent=("site", "north")).outcome == "resolved"


def test_flapping_ends_by_itself(report: Report, clock: Clock) -> None:
    for severity in ("critical", "ok", "critical", "ok", "critical"):
        report(severity)
    assert Alert.objects.filter(OPEN).get().state == "flapping"
    assert rounds.run(clock.move(minutes=20)) == 0
    assert rounds.run(clock.move(minutes=20)) == 1
    assert Alert.objects.filter(OPEN).get().state == "firing"
    assert report("ok").outcome == "resolved"


def test_flapping_that_ends_in_a_silence_is_quiet(report: Report, clock: Clock) -> None:
    for severity in ("critical", "ok", "critical", "ok", "critical"):
        report(severity)
    Silence.objects.create(comment="work", ends_at=clock.now + timedelta(hours=1))
    assert rounds.run(clock.move(minutes=40)) == 0
    assert Alert.objects.filter(OPEN).get().state == "suppressed"
    assert rounds.run(clock.move(minutes=40)) == 1
    assert Alert.objects.filter(OPEN).get().state == "firing"


def test_alerts_of_a_disabled_rule_close(report: Report, clock: Clock) -> None:
    report("critical")
    Rule.objects.update(enabled=False)
    rounds.run(clock.now)
    assert Alert.objects.get().state == "resolved"


def test_what_somebody_resolves_needs_all_its_bad_reports_again(report: Report) -> None:
    Rule.objects.update(needed=2, window=3)
    report("critical")
    report("critical")
    assert actions.resolve(Alert.objects.all(), "ann", "done") == 1
    assert actions.resolve(Alert.objects.all(), "ann", "done") == 0
    assert Subject.objects.get().alert is None
    assert report("critical").outcome == "pending"
    closed = Alert.objects.order_by("pk").first()
    last = closed.events.last()
    assert (last.kind, last.by, last.text) == ("resolved", "ann", "done")


def test_a_flapping_alert_is_acknowledged_and_goes_on_flapping(report: Report) -> None:
    for severity in ("critical", "ok", "critical", "ok", "critical"):
        report(severity)
    assert actions.acknowledge(Alert.objects.all(), "ann") == 1
    alert = Alert.objects.get(state="flapping")
    assert alert.acknowledged_by == "ann"


def test_a_note_is_kept_in_the_timeline(report: Report) -> None:
    report("critical")
    actions.add_note(Alert.objects.get(), "ann", "The disk is on its way.")
    alert = Alert.objects.get()
    assert alert.note == "The disk is on its way."
    assert events() == ["fired", "noted"]


def test_what_is_no_longer_watched_has_no_alert(report: Report) -> None:
    report("critical")
    assert actions.retire("tests", "bot-1") == 1
    assert not Alert.objects.filter(OPEN).exists()


def test_more_alerts_than_a_portion_are_acknowledged(rule: Rule, clock: Clock) -> None:
    subjects = Subject.objects.bulk_create(
        Subject(rule=rule, name=f"bot-{n}", fingerprint=f"{n}") for n in range(450)
    )
    Alert.objects.bulk_create(
        Alert(rule=rule, subject=subject, open_key=subject.fingerprint, severity=30,
              state="firing", opened_at=clock.now, last_seen_at=clock.now)
        for subject in subjects
    )  # fmt: skip
    assert actions.acknowledge(Alert.objects.all(), "ann", "all of them") == 450
    assert actions.acknowledge(Alert.objects.all(), "ann", "all of them") == 0


@pytest.mark.parametrize(("lag", "state"), [(0.2, None), (8, "warning"), (90, "critical")])
def test_a_beat_that_is_late_has_an_alert(clock: Clock, lag: float, state: str | None) -> None:
    for _ in range(4):
        clock.move(seconds=15)
        Instance.objects.update_or_create(
            name="beat-1",
            defaults={"leader": True, "started_at": clock.now, "ticked_at": clock.now, "lag": lag,
                      "schedules": 7, "published": 0, "lost": 0},
        )  # fmt: skip
        engine.report(own.conditions(clock.now))
    fired = Alert.objects.filter(state="firing").first()
    assert (Severity(fired.severity).label if fired else None) == state


def test_without_a_beat_nothing_is_known_of_its_lag(clock: Clock) -> None:
    assert {condition.rule for condition in own.conditions(clock.now)} == {"mail-relay", "storage"}


def test_a_relay_that_refuses_the_site_has_an_alert_until_it_is_cured(clock: Clock) -> None:
    relay.mark_down(smtp.RelayDown("The relay refuses: 530 5.7.0 Login"), clock.now)
    for _ in range(4):
        clock.move(seconds=15)
        engine.report(own.conditions(clock.now))
    alert = Alert.objects.get()
    assert (str(alert.rule), alert.state) == ("core/mail-relay", "firing")
    assert "530 5.7.0 Login" in alert.summary
    relay.mark_up()
    clock.move(seconds=15)
    engine.report(own.conditions(clock.now))
    assert not Alert.objects.filter(OPEN).exists()


def test_a_destination_that_is_down_has_an_alert_by_the_other_channels(clock: Clock) -> None:
    hook = Subscription.objects.create(name="hook", channel="webhook", url_host="chat.lan")
    Subscription.objects.create(name="people", recipients="ops@health.internal")
    destinations.mark_down(OutboundMail(subscription=hook), "It answered 500", None, clock.now)
    for _ in range(4):
        clock.move(seconds=15)
        engine.report(own.conditions(clock.now))
    alert = Alert.objects.get()
    assert (str(alert.rule), alert.state, alert.subject.name) == ("core/channel", "firing", "hook")
    assert "It answered 500" in alert.summary
    assert OutboundMail.objects.filter(
        subscription__name="people", topic=f"alert:{alert.pk}"
    ).exists()
    hook.name = "chat"
    hook.save()
    assert not Alert.objects.filter(OPEN).exists(), "nobody would report under the old name"
    for _ in range(4):
        clock.move(seconds=15)
        engine.report(own.conditions(clock.now))
    assert Alert.objects.get(OPEN).subject.name == "chat"
    destinations.mark_up(OutboundMail(subscription=hook))
    clock.move(seconds=15)
    engine.report(own.conditions(clock.now))
    assert not Alert.objects.filter(OPEN).exists()


@pytest.mark.parametrize("cause", ["silence", "parent"])
def test_who_was_told_before_a_suppression_hears_of_an_end_in_it(
    subscription: Subscription, report: Report, clock: Clock, cause: str
) -> None:
    parent = ("works", "north")
    report("critical", parent=parent)
    OutboundMail.objects.update(state="sent", next_try_at=None)
    Subscription.objects.create(name="new", recipients="new@health.internal")
    if cause == "silence":
        actions.silence(Alert.objects.all(), "ann", "work", timedelta(hours=1))
    else:
        report("critical", subject="north")
    rounds.run(clock.now)
    assert Alert.objects.get(subject__name="bot-1").state == "suppressed"
    report("ok", parent=parent)
    (last,) = OutboundMail.objects.filter(status="resolved")
    assert last.subscription == subscription, "nobody else was told"
