"""The stack's own conditions; what stops beat altogether is seen by its health check instead."""

from datetime import datetime

from django.conf import settings

from soc.alerts.conditions import Condition
from soc.common.times import local
from soc.core import beats, storage
from soc.core.severity import Severity
from soc.notify import health

BEAT_LAG = ("core", "beat-lag")
"""The rule under which beat's lag is reported."""

MAIL_RELAY = ("core", "mail-relay")
"""The rule under which an outage of the relay is reported."""

STORAGE = ("core", "storage")
"""The rule under which the room of the volumes is reported."""


def conditions(now: datetime) -> list[Condition]:
    """Return what the stack has to report of itself."""
    return [*_beat(now), _relay(now), _storage(now)]


def _storage(now: datetime) -> Condition:
    """Return whether the volumes have room."""
    application, rule = STORAGE
    left = storage.free()
    return Condition(
        application=application,
        rule=rule,
        subject="volumes",
        severity=left.severity,
        observed_at=now,
        summary=left.text,
        facts={"Free space": f"{left.space:.0%}", "Free inodes": f"{left.inodes:.0%}"},
    )


def _relay(now: datetime) -> Condition:
    """Return whether the site's mail gets out, which no mail can say."""
    state = health.relay_state()
    application, rule = MAIL_RELAY
    facts: dict[str, object] = {}
    if state.down_since:
        facts = {"Down since": local(state.down_since), "Attempts": state.failures}
    return Condition(
        application=application,
        rule=rule,
        subject=f"{settings.SMTP_HOST}:{settings.SMTP_PORT}",
        severity=Severity.CRITICAL if state.down_since else Severity.OK,
        observed_at=now,
        summary=f"All mail waits: {state.error}" if state.down_since else "",
        facts=facts,
        link="/#mail",
    )


def _beat(now: datetime) -> list[Condition]:
    """Return how late the active beat is; nothing without one, since nothing is known then."""
    beat = beats.leader(now)
    if beat is None:
        return []
    application, rule = BEAT_LAG
    return [
        Condition(
            application=application,
            rule=rule,
            subject="beat",
            severity=beats.lag_severity(beat.lag),
            observed_at=beat.ticked_at,
            summary=f"The oldest due run has waited for {beat.lag:.0f} s.",
            facts={"Instance": beat.name, "Schedules": beat.schedules},
            link="/#beat",
        )
    ]
