"""The application's part of the reports of subscriptions."""

from collections.abc import Iterator

from soc.demo.conditions import APPLICATION
from soc.demo.models import DemoCounter

from soc.core.links import absolute
from soc.core.severity import Severity
from soc.notify.models import Subscription
from soc.notify.reports import Period, Section
from soc.notify.templates import Notice


def sections(subscription: Subscription, period: Period) -> Iterator[Section]:
    """Yield the report on the counters, if there are any and the subscription is about them."""
    counters = list(DemoCounter.objects.filter(enabled=True))
    if not counters or not subscription.is_about(APPLICATION):
        return
    above = [counter for counter in counters if counter.is_above]
    notice = Notice(
        title=f"Demo: {len(counters)} counters, {len(above)} above their limits",
        severity=Severity.WARNING if above else Severity.INFO,
        summary="",
        facts={counter.name: f"{counter.value} of {counter.limit}" for counter in counters},
        link=absolute("demo"),
        application=APPLICATION,
        status="report",
    )
    yield Section(APPLICATION, notice)
