"""What subscribers are told about alerts."""

from soc.alerts.models import Alert, AlertEvent
from soc.core.links import absolute
from soc.core.severity import Severity
from soc.core.times import local
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
        case Kind.RESOLVED if event.before == State.SUPPRESSED:
            outbox.withdraw([alert.topic])
    return 0


def is_told(kind: Kind | None, before: State | None, state: State | None) -> bool:
    """Tell whether an event is mailed to every subscriber, one who has got every mail so far."""
    match kind:
        case Kind.FIRED | Kind.STEADY | Kind.FLAPPING | Kind.REMINDED:
            return True
        case Kind.WORSE:
            return state == State.FIRING
        case Kind.RESOLVED:
            return before not in (State.PENDING, State.SUPPRESSED)
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
    facts = {
        "Subject": alert.subject.name,
        "Site": alert.site,
        "Since": local(alert.opened_at),
        "Resolved": local(alert.resolved_at) if alert.resolved_at else "",
        "By": event.by,
        "Note": event.text,
        **alert.facts,
        "Page": alert.link,
        "Runbook": alert.rule.runbook,
    }
    return Notice(
        title=f"{alert.subject.name}: {summary.rstrip('.')}"[:LONGEST_TITLE],
        severity=severity,
        summary=summary,
        facts={name: value for name, value in facts.items() if value},
        link=absolute("alert", alert.pk),
        application=alert.rule.application,
        status=status,
    )
