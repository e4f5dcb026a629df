"""Gives the tests of mail a relay, a subscription and a clock."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mailing import Clock, FakeRelay, Outage
from soc.notify.models import Subscription


@pytest.fixture
def relay(outage: Outage) -> FakeRelay:
    outage.start()
    return outage.handler


@pytest.fixture
def subscription() -> Subscription:
    return Subscription.objects.create(
        name="ops", recipients="a@health.internal\nb@health.internal", tags="SOC, CERT"
    )


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Callable[[], float]:
    """Let waiting for the pace move the clock instead; returns the seconds waited."""
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        clock.move(seconds=seconds)

    monkeypatch.setattr("soc.notify.delivery.time.sleep", sleep)
    return lambda: sum(waited)
