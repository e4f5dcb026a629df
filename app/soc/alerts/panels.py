"""The alerts' part of the board: their numbers, the worst of them, and the last 24 hours."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Case, Value, When

from soc.alerts import lists, strips
from soc.alerts.models import OPEN, Alert
from soc.common.panels import Panel, Problem
from soc.common.text import counted
from soc.core.severity import Severity

MOST_ALERTS = 10


@dataclass(frozen=True)
class SeverityCount:
    """How many open alerts have a severity, and how many of them wait for a person."""

    label: str
    tone: str
    count: int
    waiting: int


@dataclass(frozen=True)
class OpenAlerts:
    """The open alerts: their numbers, the worst of them, and the changes of the last 24 hours."""

    counts: Sequence[SeverityCount]
    rows: Sequence[lists.AlertRow]
    suppressed: int
    """How many more are open but pending or suppressed."""
    changes: strips.AlertChanges

    @property
    def total(self) -> int:
        """How many are open and neither pending nor suppressed."""
        return sum(count.count for count in self.counts)

    def waiting(self, severity: Severity) -> int:
        """Return how many of a severity wait for a person."""
        return sum(count.waiting for count in self.counts if count.label == severity.label)


def read(now: datetime) -> OpenAlerts:
    """Return the numbers of open alerts, the worst, and the changes of the last 24 hours."""
    cells = lists.AlertsFilter().cells(now)
    # Pending and suppressed ones make no noise here either.
    heard = [cell for cell in cells if cell.state not in strips.QUIET]
    acknowledged = Case(When(lists.ATTENTION, then=Value(0)), default=Value(1))
    alerts = Alert.objects.filter(OPEN).exclude(state__in=strips.QUIET)
    worst = lists.listed(alerts).order_by(acknowledged, "-severity", "opened_at", "pk")
    return OpenAlerts(
        counts=[
            SeverityCount(
                str(severity.label),
                tone,
                count=sum(cell.count for cell in heard if cell.severity == severity),
                waiting=sum(cell.waiting for cell in heard if cell.severity == severity),
            )
            for severity, tone in lists.TONES.items()
            if severity != Severity.OK
        ],
        rows=lists.rows(worst[:MOST_ALERTS], now),
        suppressed=sum(cell.count for cell in cells) - sum(cell.count for cell in heard),
        changes=strips.of_site(now),
    )


def problems(alerts: OpenAlerts, _: datetime) -> Iterator[Problem]:
    """Complain of the alerts that nobody has acknowledged; certificates speak by theirs, too."""
    for severity, tone in ((Severity.CRITICAL, "bad"), (Severity.WARNING, "warn")):
        if waiting := alerts.waiting(severity):
            verb = "waits" if waiting == 1 else "wait"
            text = f"{counted(waiting, f'{severity.label} alert')} {verb} for a person."
            yield Problem(tone, text, "alerts")


PANELS = (
    Panel(
        *("alerts", read, problems, "alerts/panel.html", "alerts.view_alert"),
        column="top",
        position=10,
    ),
)
