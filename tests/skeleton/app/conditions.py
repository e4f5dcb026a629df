"""What the application reports to the alerts: good conditions too, for they end alerts."""

from datetime import datetime

from soc.demo.models import DemoCounter

from soc.alerts import engine
from soc.alerts.conditions import Condition
from soc.core.links import absolute
from soc.core.severity import Severity

APPLICATION = "demo"
LIMIT = "limit"


def report(now: datetime) -> int:
    """Report every counter; return how many mails that makes."""
    counters = DemoCounter.objects.filter(enabled=True)
    return sum(result.mails for result in engine.report([_condition(c, now) for c in counters]))


def _condition(counter: DemoCounter, now: datetime) -> Condition:
    return Condition(
        application=APPLICATION,
        rule=LIMIT,
        subject=counter.name,
        severity=Severity.WARNING if counter.is_above else Severity.OK,
        observed_at=now,
        summary=f"It is {counter.value}, above {counter.limit}." if counter.is_above else "",
        facts={"Value": counter.value, "Limit": counter.limit},
        link=absolute("demo"),
    )
