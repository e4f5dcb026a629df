"""What subscribers are told about alerts."""

from collections.abc import Mapping

from soc.alerts.models import Alert, AlertEvent
from soc.common.times import local
from soc.core.links import absolute, with_host
from soc.core.severity import Severity
from soc.notify import outbox
from soc.notify.templates import Notice

State = Alert.State
Kind = AlertEvent.Kind

LONGEST_TITLE = 150


def tell(alert: Alert, event: AlertEvent) -> int:
    """Queue the mail that an event asks for, and return how many mails are new."""
    key = f"{alert.topic}:{event.pk}"
    if is_told(event.kind, event.before, alert.state):
        send = outbox.conclude if event.kind == Kind.RESOLVED else outbox.enqueue
        return send(notice(alert, event), key, topic=alert.topic)
    match event.kind:
        case Kind.ESCALATED if to := alert.rule.escalate_to:
            return outbox.enqueue(notice(alert, event), key, topic=alert.topic, to=[to])
        case Kind.SUPPRESSED:
            outbox.withdraw([alert.topic])
    return 0


def is_told(kind: str | None, before: str | None, state: str | None) -> bool:
    """Tell whether an event is mailed to every subscriber, one who has got every mail so far."""
    match kind:
        case Kind.FIRED | Kind.STEADY | Kind.FLAPPING | Kind.REMINDED:
            return True
        case Kind.WORSE:
            return state == State.FIRING
        case Kind.RESOLVED:
            # Also of one that was suppressed in the end: who was told before waits for it.
            return before != State.PENDING
    return False


_STATUS = {
    Kind.FLAPPING: "flapping",
    Kind.REMINDED: "still {}",
    Kind.ESCALATED: "not acknowledged, {}",
    Kind.RESOLVED: "resolved",
}


def notice(alert: Alert, event: AlertEvent) -> Notice:
    """Return what an event of an alert means to a reader."""
    severity = Severity(alert.severity)
    status = _STATUS.get(Kind(event.kind), "{}").format(severity.label)
    summary = alert.summary or alert.rule.description
    return Notice(
        title=f"{alert.subject.name}: {summary.rstrip('.')}"[:LONGEST_TITLE],
        severity=severity,
        summary=summary,
        facts=_facts(alert, event),
        link=absolute("alert", alert.pk),
        application=alert.rule.application,
        status=status,
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
