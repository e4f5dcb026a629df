"""Alerts while the mail relay is down."""

from __future__ import annotations

import re

import pytest

from mailing import Clock, Outage
from soc.alerts import engine
from soc.alerts.conditions import Condition
from soc.alerts.models import Rule
from soc.core.severity import Severity
from soc.notify import delivery
from soc.notify.models import OutboundMail, Subscription

pytestmark = pytest.mark.django_db


def test_after_an_hour_without_a_relay_there_is_one_digest_of_the_alerts_that_still_fire(
    rule: Rule, clock: Clock, outage: Outage
) -> None:
    """500 alerts open, 450 of them resolve, and nobody hears of these at all."""
    for name in ("day", "night"):
        Subscription.objects.create(name=name, recipients=f"{name}@health.internal")

    def report(severity: Severity, count: int) -> None:
        engine.report(
            Condition("tests", "works", f"bot-{n}", severity, clock.now, "It is silent.")
            for n in range(count)
        )

    report(Severity.CRITICAL, 500)
    for _ in range(30):
        assert delivery.send_due() == 0
        clock.move(minutes=2)
    report(Severity.OK, 450)

    outage.start()
    clock.move(minutes=5)
    assert delivery.send_due() == 2
    assert len(outage.handler.messages) == 2
    for message in outage.handler.messages:
        body = message.get_body(("plain",)).get_content()
        assert set(re.findall(r"bot-(\d+)", body)) == {str(n) for n in range(450, 500)}
    assert OutboundMail.objects.filter(state="withdrawn").count() == 900
