"""The stack's own conditions; what stops beat altogether is told by its health check instead."""

from datetime import datetime

from soc.alerts.conditions import Condition
from soc.beat import status
from soc.beat.models import Instance
from soc.core.severity import Severity

BEAT_LAG = ("core", "beat-lag")
"""The rule under which beat's lag is reported."""

LATE = 5.0
VERY_LATE = 60.0
"""Seconds; schedules are due to the second, and most of them every minute."""


def conditions(now: datetime) -> list[Condition]:
    """Return how late the active beat is; nothing without one, since nothing is known then."""
    active = Instance.objects.filter(leader=True, ticked_at__gt=now - status.ALIVE_FOR)
    beat = active.order_by("-ticked_at").first()
    if beat is None:
        return []
    application, rule = BEAT_LAG
    return [
        Condition(
            application=application,
            rule=rule,
            subject="beat",
            severity=_severity(beat.lag),
            observed_at=beat.ticked_at,
            summary=f"The oldest due run has waited for {beat.lag:.0f} s.",
            facts={"Instance": beat.name, "Schedules": beat.schedules},
            link="/#beat",
        )
    ]


def _severity(lag: float) -> Severity:
    if lag < LATE:
        return Severity.OK
    return Severity.CRITICAL if lag >= VERY_LATE else Severity.WARNING
