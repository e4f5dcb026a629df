"""Makes rows of the stream's events about logons."""

from collections.abc import Sequence
from datetime import timedelta

from soc.events.readers import Arrival
from soc.logons import messages
from soc.logons.models import LogonEvent

KIND = "logon"
PROVIDER = "ControlUp Logon Monitor"
CHANNEL = "Application"

_MILLISECOND = timedelta(milliseconds=1)


def read(arrival: Arrival) -> Sequence[LogonEvent]:
    """Return the row of an event of a logon robot, nothing of another's."""
    event = arrival.event
    if event.provider.lower() != PROVIDER.lower():
        return []
    attempt = messages.read(event.message, event.values)
    phases = {f"{name}_ms": _ms(attempt.phases.get(name)) for name in messages.PHASES}
    return [
        arrival.row(
            LogonEvent,
            state=attempt.outcome.value,
            event_id=event.event_id,
            resource=attempt.resource,
            broker=attempt.broker,
            reason=attempt.reason,
            response_ms=_ms(attempt.response),
            **phases,
        )
    ]


def _ms(span: timedelta | None) -> int | None:
    return None if span is None else round(span / _MILLISECOND)
