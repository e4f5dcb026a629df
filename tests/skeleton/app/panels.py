"""The application's part of the board."""

from datetime import datetime

from soc.demo.models import DemoCounter

from soc.common.panels import Panel


def read(_: datetime) -> list[DemoCounter]:
    """Return the counters that are above their limits."""
    counters = DemoCounter.objects.filter(enabled=True)
    return [counter for counter in counters if counter.is_above]


PANELS = (Panel("demo", read, template="demo/panel.html", permission="demo.view_democounter"),)
