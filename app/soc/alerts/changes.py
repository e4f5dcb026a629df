"""Changes of alerts: one conditional update each, an event in the timeline, and the mail."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TypedDict

from django.utils import timezone

from soc.alerts import notices
from soc.alerts.models import Alert, AlertEvent, Rule

State = Alert.State
Kind = AlertEvent.Kind

_AS_READ = ("state", "severity", "remind_at", "escalate_at")
"""What must not have changed since an alert was read."""


UNACKNOWLEDGED: Mapping[str, None] = {"acknowledged_at": None, "acknowledged_until": None}
"""The values of an alert whose acknowledgement has ended; who gave it stays on record."""


class Outrun(Exception):
    """Another writer has changed the subject or the alert since it was read."""


def change(
    alert: Alert,
    kind: Kind,
    values: Mapping[str, object],
    *,
    observed_at: datetime | None = None,
    by: str = "",
    text: str = "",
) -> int:
    """Write new values of an alert, with an event, and return how many mails that makes.

    The caller has a transaction, so that nothing remains of a change that was outrun.

    Raises:
        Outrun: the alert is no longer as it was read.
    """
    before = alert.state
    write(alert, **values)
    return record(alert, kind, before=before, observed_at=observed_at, by=by, text=text)


def record(
    alert: Alert,
    kind: Kind,
    *,
    before: str,
    observed_at: datetime | None = None,
    by: str = "",
    text: str = "",
) -> int:
    """Add an event to an alert's timeline, and return how many mails that makes."""
    event = AlertEvent(
        alert=alert,
        observed_at=observed_at,
        kind=kind,
        before=before,
        after=alert.state,
        severity=alert.severity,
        by=by,
        text=text,
    )
    audience = notices.audience(alert, event)
    event.unnotified = audience.refusals
    event.save()
    return notices.tell(alert, event, audience)


def write(alert: Alert, **values: object) -> None:
    """Write new values of an alert that is still as it was read.

    Raises:
        Outrun: it is not.
    """
    as_read = {name: getattr(alert, name) for name in _AS_READ}
    if not Alert.objects.filter(pk=alert.pk, **as_read).update(**values):
        raise Outrun
    for name, value in values.items():
        setattr(alert, name, value)


class Timers(TypedDict):
    """When something is next due for an alert, if it is."""

    remind_at: datetime | None
    escalate_at: datetime | None
    escalated: int


def timers(rule: Rule, state: str | None, severity: int, now: datetime) -> Timers:
    """Return when an alert that enters a state is next reminded of, and escalated."""
    remind_at: datetime | None = None
    escalate_at: datetime | None = None
    if state == State.FIRING:
        interval = rule.reminder_interval(severity)
        remind_at = now + interval if interval else None
        if step := rule.steps.first():
            escalate_at = now + timedelta(minutes=step.after)
    return {"remind_at": remind_at, "escalate_at": escalate_at, "escalated": 0}


class Ending(TypedDict):
    """The values of an alert that is resolved."""

    state: State
    open_key: None
    acknowledged_until: None
    resolved_at: datetime
    remind_at: None
    escalate_at: None
    suppressed_by: str


def ending() -> Ending:
    """Return the values of an alert that is resolved now."""
    return {
        "state": State.RESOLVED,
        "open_key": None,
        "acknowledged_until": None,
        "resolved_at": timezone.now(),
        "remind_at": None,
        "escalate_at": None,
        "suppressed_by": "",
    }
