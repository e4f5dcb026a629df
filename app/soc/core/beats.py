"""What counts as an active beat, and how late is late: for board, metrics and alerts alike."""

from datetime import datetime

from django.db.models import QuerySet

from soc.beat.models import Instance
from soc.common.text import age
from soc.core.models import ALIVE_FOR
from soc.core.severity import Severity

LATE = 5.0
VERY_LATE = 60.0
"""Seconds that the oldest due run has waited; most schedules are due every minute."""


def alive(now: datetime) -> QuerySet[Instance]:
    """Return the beats that have been heard of, the active one first."""
    known = Instance.objects.filter(ticked_at__gt=now - ALIVE_FOR)
    return known.order_by("-leader", "-ticked_at", "name")


def leader(now: datetime) -> Instance | None:
    """Return the active beat, if there is one; of two, whose lease has just changed, the newer."""
    return alive(now).filter(leader=True).first()


def lag_severity(lag: float) -> Severity:
    """Return how bad a lag in seconds is."""
    if lag < LATE:
        return Severity.OK
    return Severity.CRITICAL if lag >= VERY_LATE else Severity.WARNING


def blocked(beat: Instance, now: datetime) -> str:
    """Return that the broker takes no messages, and what to do, in a sentence; else nothing."""
    if beat.blocked_since is None:
        return ""
    return (
        f"RabbitMQ has taken no messages for {age(beat.blocked_since, now)}, because of its disk "
        f"or memory alarm: no schedule runs and no event is stored. `make doctor` says which; it "
        f"goes on by itself once there is room."
    )
