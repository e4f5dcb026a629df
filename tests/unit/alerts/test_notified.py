"""Why somebody was notified of an alert, and why somebody was not."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from django.test import Client
from django.utils import timezone

from mailing import Clock
from soc.alerts import actions, notified, rounds
from soc.alerts.models import Alert, EscalationStep, Rule, Silence
from soc.core.severity import Severity
from soc.notify.models import OutboundMail, Subscription

if TYPE_CHECKING:
    from conftest import Report

pytestmark = pytest.mark.django_db

Sending = OutboundMail.State


def outcomes_of(alert: Alert) -> dict[int, notified.Notified]:
    return notified.of_events(alert, list(alert.events.all()), notified.mails_of(alert))


def timeline(alert: Alert | None = None) -> list[tuple[str, list[tuple[str, str]], str]]:
    """Return each event's kind, what became of it for each subscription, and its remark."""
    alert = alert or Alert.objects.get()
    events = list(alert.events.all())
    found = outcomes_of(alert)
    return [
        (
            event.kind,
            [(one.subscription, one.text) for one in found[event.pk].outcomes],
            found[event.pk].remark,
        )
        for event in events
    ]


def last(alert: Alert | None = None) -> dict[str, str]:
    return dict(timeline(alert)[-1][1])


def sent(at: Clock) -> None:
    OutboundMail.objects.update(state=Sending.SENT, next_try_at=None, sent_at=at.now)


def subscribe(name: str, **values: object) -> Subscription:
    return Subscription.objects.create(
        **{"name": name, "recipients": f"{name}@health.internal"} | values
    )


def test_each_subscription_has_a_line_with_what_it_got_or_why_not(
    rule: Rule, report: Report, clock: Clock
) -> None:
    subscribe("ops")
    subscribe("directories", applications="ldap_probe, logons")
    subscribe("criticals", minimum_severity=Severity.CRITICAL)
    subscribe("off", enabled=False)
    subscribe("also off", enabled=False)
    report("warning")
    sent(clock)
    alert = Alert.objects.get()
    outcomes = outcomes_of(alert)[alert.events.get().pk].outcomes
    (outcome,) = (one for one in outcomes if one.state == "sent")
    assert (outcome.channel, outcome.recipients) == ("E-mail", ["ops@health.internal"])
    assert outcome.at == clock.now
    assert last() == {
        "ops": "sent to ops@health.internal by E-mail",
        "directories": "not notified: it is for ldap_probe, logons only",
        "criticals": "not notified: its minimum severity is critical",
        "off": "not notified: it is disabled",
        "also off": "not notified: it is disabled",
    }


def test_an_alert_that_no_subscription_wants_says_so_and_logs_it(
    rule: Rule, report: Report, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        report("critical")
    assert timeline() == [
        ("fired", [], "Nobody is notified: there is no subscription that wants it.")
    ]
    assert "tests/works: bot-1 is fired and notifies nobody" in caplog.text


def test_what_is_said_of_a_subscription_stays_when_it_changes(rule: Rule, report: Report) -> None:
    subscription = subscribe("criticals", minimum_severity=Severity.CRITICAL)
    report("warning")
    subscription.minimum_severity = Severity.INFO
    subscription.save()
    assert last() == {"criticals": "not notified: its minimum severity is critical"}


def test_quiet_hours_hold_and_say_until_when(rule: Rule, report: Report, clock: Clock) -> None:
    now = timezone.localtime(clock.now)
    subscribe(
        "night",
        quiet_from=(now - timedelta(hours=1)).time(),
        quiet_until=(now + timedelta(hours=1)).time().replace(microsecond=0),
    )
    subscribe("digest", digest_minutes=30)
    report("warning")
    lines = last()
    until = timezone.localtime(OutboundMail.objects.get(subscription__name="night").next_try_at)
    assert lines["night"] == (
        f"held until {until:%Y-%m-%d %H:%M:%S %Z} to night@health.internal by E-mail: quiet hours"
    )
    assert lines["digest"].endswith("by E-mail: gathered for a digest")


def test_a_silence_and_a_parent_are_named(rule: Rule, report: Report, clock: Clock) -> None:
    subscribe("ops")
    report("critical")
    Silence.objects.create(
        comment="new switch", starts_at=clock.now, ends_at=clock.now + timedelta(hours=1)
    )
    rounds.run(clock.now)
    events = timeline()
    assert events[0][1] == [("ops", "withdrawn before it went out: Silence: new switch")]
    assert events[1] == (
        "suppressed",
        [],
        "Nobody is notified while it is suppressed; what still waited is withdrawn.",
    )


def test_acknowledging_flapping_and_getting_better_say_why_nothing_follows(
    rule: Rule, report: Report, clock: Clock
) -> None:
    subscribe("ops")
    report("critical")
    report("warning")
    actions.acknowledge(Alert.objects.all(), "jo")
    assert [(kind, remark) for kind, _, remark in timeline()[1:]] == [
        ("better", "Nobody is notified: what gets better is no news."),
        ("acknowledged", "No reminders and no escalation from here on."),
    ]


def test_an_acknowledged_alert_that_is_stable_again_says_why_nobody_is_notified(
    rule: Rule, report: Report, clock: Clock
) -> None:
    subscribe("ops")
    for severity in ("critical", "ok", "critical", "ok", "critical"):
        report(severity)
    actions.acknowledge(Alert.objects.filter(state="flapping"), "jo")
    clock.move(minutes=40)
    report("critical")
    kind, outcomes, remark = timeline(Alert.objects.get(resolved_at=None))[-1]
    assert (kind, outcomes) == ("steady", [])
    assert remark == "Nobody is notified: it is acknowledged."


def test_the_end_is_for_those_who_were_notified(rule: Rule, report: Report, clock: Clock) -> None:
    subscribe("ops")
    subscribe("criticals", minimum_severity=Severity.CRITICAL)
    report("warning")
    sent(clock)
    report("ok")
    lines = last()
    assert lines["ops"] == "waits to be sent to ops@health.internal by E-mail"
    assert lines["criticals"] == "not notified: it had not been notified before"


def test_the_end_of_what_nobody_got_notifies_nobody(
    rule: Rule, report: Report, clock: Clock
) -> None:
    subscribe("ops")
    report("warning")
    report("ok")
    events = timeline()
    assert events[0][1] == [("ops", "withdrawn before it went out: the alert was over")]
    assert events[1][2] == "Nobody is notified of the end: nobody had got a message before."


def test_what_is_not_bad_often_enough_is_pending(rule: Rule, report: Report) -> None:
    Rule.objects.filter(pk=rule.pk).update(needed=2, window=3)
    report("critical")
    report("ok")
    report("ok")
    report("ok")
    kinds = [(kind, remark) for kind, _, remark in timeline()]
    assert kinds == [
        ("pending", "Nobody is notified yet: 2 bad of 3 reports are needed."),
        ("resolved", "Nobody is notified: it never fired."),
    ]


@pytest.mark.parametrize(
    ("values", "state", "text"),
    [
        ({"state": Sending.FAILED, "last_error": "550 no"}, "failed", "refused to {}: 550 no"),
        ({"state": Sending.EXPIRED, "last_error": "away"}, "failed",
         "expired before it got out to {}: away"),
        ({"last_error": "It is down"}, "waiting", "waits to be sent to {}: It is down"),
        ({"state": Sending.WITHDRAWN}, "not notified",
         "withdrawn before it went out: the subscription was disabled"),
        ({"state": Sending.SENT, "refused": {"b@x.test": "550 no"}}, "sent",
         "sent to {} (b@x.test refused: 550 no)"),
    ],
)  # fmt: skip
def test_what_did_not_get_through_says_why(
    rule: Rule, report: Report, values: dict[str, object], state: str, text: str
) -> None:
    subscribe("ops")
    report("warning")
    OutboundMail.objects.update(**values)
    alert = Alert.objects.get()
    (outcome,) = outcomes_of(alert)[alert.events.get().pk].outcomes
    assert outcome.state == state
    assert outcome.text == text.format("ops@health.internal by E-mail")


def test_a_digest_and_a_copy_to_the_fallback_are_followed(
    rule: Rule, report: Report, clock: Clock
) -> None:
    subscribe("ops")
    subscribe("mail")
    report("warning")
    mails = {mail.subscription.name: mail for mail in OutboundMail.objects.all()}
    digest = OutboundMail.objects.create(
        dedupe_key="digest:1", kind="digest", recipients=["ops@health.internal"],
        state=Sending.SENT, sent_at=clock.now,
    )  # fmt: skip
    OutboundMail.objects.filter(pk=mails["ops"].pk).update(state=Sending.DIGESTED, digest=digest)
    OutboundMail.objects.filter(pk=mails["mail"].pk).update(state=Sending.FAILED, last_error="550")
    OutboundMail.objects.create(
        dedupe_key="fallback:1", topic=mails["mail"].topic, fallback_of=mails["mail"],
        subscription=mails["mail"].subscription, recipients=["boss@health.internal"],
        state=Sending.SENT, sent_at=clock.now,
    )  # fmt: skip
    lines = last()
    assert lines["ops"] == "sent to ops@health.internal by E-mail, in a digest"
    assert lines["mail (fallback)"] == "sent to boss@health.internal by E-mail"


def test_an_escalation_names_whom_it_went_to(rule: Rule, report: Report, clock: Clock) -> None:
    boss = subscribe("boss", minimum_severity=Severity.CRITICAL)
    EscalationStep.objects.create(rule=rule, after=30, subscription=boss)
    report("warning")
    clock.move(minutes=31)
    rounds.run(clock.now)
    assert last() == {"boss": "waits to be sent to boss@health.internal by E-mail"}


def test_the_page_shows_it_in_a_number_of_statements_that_does_not_grow(
    rule: Rule, report: Report, clock: Clock, browser: Client, django_assert_max_num_queries: object
) -> None:
    Rule.objects.update(remind_warning=1)
    for number in range(30):
        subscribe(f"ops{number}")
    report("warning")
    alert = Alert.objects.get()
    for _ in range(20):
        clock.move(minutes=2)
        rounds.run(clock.now)
    with django_assert_max_num_queries(20):
        page = browser.get(f"/alerts/{alert.pk}/", secure=True).content.decode()
    assert page.count("waits to be sent") > 100


def test_a_name_cannot_put_markup_into_the_page(
    rule: Rule, report: Report, browser: Client
) -> None:
    subscribe("<b>x</b>", recipients="ops@health.internal", minimum_severity=Severity.CRITICAL)
    report("warning")
    page = browser.get(f"/alerts/{Alert.objects.get().pk}/", secure=True).content.decode()
    assert "&lt;b&gt;x&lt;/b&gt;" in page
