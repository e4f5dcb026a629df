"""The notices about alerts."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from django.utils import timezone

from soc.alerts.models import Alert, AlertEvent
from soc.common.times import local
from soc.core.links import absolute, with_host
from soc.core.severity import Severity
from soc.notify import outbox
from soc.notify.models import Subscription
from soc.notify.recipients import Recipients
from soc.notify.templates import Notice

State = Alert.State
Kind = AlertEvent.Kind

LONGEST_TITLE = 150
NO_SUBSCRIPTION = "there is no subscription that wants it"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Audience:
    """The subscriptions that want an event, and the names of the others by why they do not."""

    wanting: list[Subscription] = field(default_factory=list)
    refusals: dict[str, list[str]] = field(default_factory=dict)


def audience(alert: Alert, event: AlertEvent) -> Audience:
    """Return whom an event notifies, and why not the others that it could.

    The end of an alert is for those who were notified of it, which the outbox knows.
    """
    found = Audience()
    recipients = Recipients(timezone.now())
    for subscription in _asked(alert, event):
        why = _refusal(alert, event, subscription)
        if not why and not recipients.of(subscription):
            why = f"nobody is on call at {subscription.rota}, and it has no other recipients"
        if why:
            found.refusals.setdefault(why, []).append(subscription.name)
        else:
            found.wanting.append(subscription)
    if not found.wanting and is_for_all(event, alert):
        found.refusals.setdefault(NO_SUBSCRIPTION, [])
        logger.warning("%s is %s and notifies nobody: %s", alert, event.kind, NO_SUBSCRIPTION)
    return found


def is_for_all(event: AlertEvent, alert: Alert) -> bool:
    """Return whether an event is one for every subscription that wants its alert."""
    return event.kind != Kind.RESOLVED and is_told(event.kind, event.before, alert.state)


def _asked(alert: Alert, event: AlertEvent) -> Iterable[Subscription]:
    if is_for_all(event, alert):
        return Subscription.objects.select_related("rota")
    if event.kind == Kind.ESCALATED:
        done = list(alert.rule.steps.all())[: alert.escalated]
        return [step.subscription for step in done[-1:]]
    return []


def _refusal(alert: Alert, event: AlertEvent, subscription: Subscription) -> str:
    if event.kind == Kind.ESCALATED:
        # Whatever it wants else.
        return "" if subscription.enabled else "it is disabled"
    return subscription.refusal(alert.severity, alert.rule.application)


def tell(alert: Alert, event: AlertEvent, audience: Audience) -> int:
    """Queue the mail that an event asks for, and return how many mails are new."""
    key = f"{alert.topic}:{event.pk}"
    if event.kind == Kind.RESOLVED and is_told(event.kind, event.before, alert.state):
        return outbox.conclude(notice(alert, event), key, topic=alert.topic)
    if audience.wanting:
        return outbox.enqueue_to(audience.wanting, notice(alert, event), key, topic=alert.topic)
    if event.kind == Kind.SUPPRESSED:
        outbox.withdraw([alert.topic])
    return 0


def is_told(kind: str | None, before: str | None, state: str | None) -> bool:
    """Return whether an event is mailed to every subscriber, one who has got every mail so far."""
    match kind:
        case Kind.FIRED | Kind.FLAPPING | Kind.REMINDED:
            return True
        case Kind.WORSE | Kind.LAPSED | Kind.STEADY:
            return state == State.FIRING
        case Kind.RESOLVED:
            # Also of one that was suppressed in the end: who was notified before waits for it.
            return before != State.PENDING
    return False


_STATUS = {
    Kind.FLAPPING: "flapping",
    Kind.REMINDED: "still {}",
    Kind.LAPSED: "no longer acknowledged, {}",
    Kind.ESCALATED: "not acknowledged, {}",
    Kind.RESOLVED: "resolved",
}


def notice(alert: Alert, event: AlertEvent) -> Notice:
    """Return what an event of an alert means to a reader."""
    severity = Severity(alert.severity)
    status = _STATUS.get(Kind(event.kind), "{}").format(severity.label)
    summary = alert.summary or alert.rule.description
    # What was reported last is of the time before the end, and so is what it advises.
    over = event.kind == Kind.RESOLVED and alert.summary
    return Notice(
        title=f"{alert.subject.name}: {summary.rstrip('.')}"[:LONGEST_TITLE],
        severity=severity,
        summary=f"It is over. Last reported: {summary}" if over else summary,
        facts=_facts(alert, event),
        link=absolute("alert", alert.pk),
        application=alert.rule.application,
        status=status,
        acknowledgeable=alert.state in (State.FIRING, State.FLAPPING),
    )


def _facts(alert: Alert, event: AlertEvent) -> dict[str, str]:
    """Return what is shown as a table: what the alert is about, then what was reported of it."""
    head = {
        "Subject": alert.subject.name,
        "Site": alert.site,
        "Since": local(alert.opened_at),
        "Resolved": local(alert.resolved_at) if alert.resolved_at else "",
        "By": event.by,
        "Note": event.text,
    }
    tail = {"Page": with_host(alert.link), "Runbook": alert.rule.runbook}
    facts = {**head, **_renamed(alert.facts, {*head, *tail}), **tail}
    return {name: value for name, value in facts.items() if value}


def _renamed(reported: Mapping[str, str], taken: set[str]) -> dict[str, str]:
    """Return reported facts, of which none stands in the place of one of ours."""
    renamed: dict[str, str] = {}
    for name, value in reported.items():
        while name in taken:
            name = f"{name} (reported)"
        taken = taken | {name}
        renamed[name] = value
    return renamed
