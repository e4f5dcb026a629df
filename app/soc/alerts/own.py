"""The stack's own conditions; what stops beat altogether is seen by its health check instead."""

from datetime import datetime
from typing import Any

from django.conf import settings

from soc.alerts import actions
from soc.alerts.conditions import Condition
from soc.common.times import local
from soc.core import beats, storage
from soc.core.severity import Severity
from soc.notify import health
from soc.notify.models import Subscription

BEAT_LAG = ("core", "beat-lag")
"""The rule under which beat's lag is reported."""

MAIL_RELAY = ("core", "mail-relay")
"""The rule under which an outage of the relay is reported."""

CHANNEL = ("core", "channel")
"""The rule under which an outage of one subscription's destination is reported."""

STORAGE = ("core", "storage")
"""The rule under which the room of the volumes is reported."""


def conditions(now: datetime) -> list[Condition]:
    """Return what the stack has to report of itself."""
    return [*_beat(now), _relay(now), *_channels(now), _storage(now)]


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


def _channels(now: datetime) -> list[Condition]:
    """Return for each subscription that is posted to whether its destination takes messages."""
    application, rule = CHANNEL
    return [
        Condition(
            application=application,
            rule=rule,
            subject=subscription.name,
            severity=Severity.CRITICAL if down else Severity.OK,
            observed_at=now,
            summary=f"Its messages wait: {down.last_error}" if down else "",
            facts={
                "Channel": subscription.get_channel_display(),
                "Host": subscription.url_host,
                **({"Down since": local(down.down_since)} if down and down.down_since else {}),
            },
            link="/#mail",
        )
        for subscription, down in health.destinations()
    ]


def before_saving_subscription(instance: Subscription, **_: Any) -> None:
    """Close the alert on a subscription that is about to have another name."""
    stored = Subscription.objects.filter(pk=instance.pk).only("name").first()
    if stored and stored.name != instance.name:
        actions.retire(CHANNEL[0], stored.name, [CHANNEL[1]])


def after_deleting_subscription(instance: Subscription, **_: Any) -> None:
    """Close the alert on a subscription that is gone."""
    actions.retire(CHANNEL[0], instance.name, [CHANNEL[1]])


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
