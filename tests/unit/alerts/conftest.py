"""A rule, a subscriber, and reports by their time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mailing import Clock
from soc.alerts import engine
from soc.alerts.conditions import Condition
from soc.alerts.models import Rule
from soc.core.severity import Severity
from soc.notify.models import Subscription

Report = Callable[..., engine.Result]


@pytest.fixture
def rule(db: None) -> Rule:
    return Rule.objects.create(application="tests", name="works", description="It works")


@pytest.fixture
def subscription(db: None) -> Subscription:
    return Subscription.objects.create(name="ops", recipients="a@health.internal")


@pytest.fixture
def report(clock: Clock) -> Report:
    """Report a condition of `bot-1` as of now, a minute after the last one."""

    def one(severity: str, **values: Any) -> engine.Result:
        clock.move(minutes=1)
        defaults: dict[str, Any] = {
            "application": "tests",
            "rule": "works",
            "subject": "bot-1",
            "severity": Severity[severity.upper()],
            "observed_at": clock.now,
            "summary": f"It is {severity}.",
        }
        return engine.report([Condition(**defaults | values)])[0]

    return one
