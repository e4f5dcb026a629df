"""What a shift was like: what opened, was acknowledged and resolved, how fast, and what was noisy.

Means are of what happened within the shift: an alert that opened before it and was resolved in it
counts with the whole time that it was open.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlencode

from django.db.models import Avg, Count, DurationField, ExpressionWrapper, F, Min, QuerySet

from soc.alerts import lists, strips
from soc.alerts.models import OPEN, Alert, AlertEvent
from soc.alerts.spans import in_words
from soc.common.times import local
from soc.core.links import absolute
from soc.core.severity import Severity
from soc.notify.templates import Notice

MOST_NOISY = 10
MOST_OPEN = 50
MOST_NAMED = 20
"""Open alerts that a mail names."""

PARTS_IN_TEXT = 24
BAR = 100
"""The width of the longest bar."""

Kind = AlertEvent.Kind

NOISE = (Kind.FIRED, Kind.WORSE, Kind.FLAPPING, Kind.STEADY, Kind.LAPSED, Kind.REMINDED)
"""What reaches people; an escalation is no noise of its target's."""

_LEVELS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class NoisyTarget:
    """A target and how often it was heard of."""

    name: str
    rule: str
    count: int
    bar: int


@dataclass(frozen=True)
class Shift:
    """A time and what happened in it."""

    since: datetime
    until: datetime
    opened: int
    acknowledged: int
    resolved: int
    open_rows: Sequence[lists.AlertRow]
    open_count: int
    mean_to_acknowledge: timedelta | None
    mean_to_resolve: timedelta | None
    noisiest: Sequence[NoisyTarget]
    changes: strips.AlertChanges

    @property
    def mtta(self) -> str:
        """The mean time to acknowledge in words."""
        return _words(self.mean_to_acknowledge)

    @property
    def mttr(self) -> str:
        """The mean time to resolve in words."""
        return _words(self.mean_to_resolve)

    @property
    def length(self) -> str:
        """How long it was."""
        return in_words(self.until - self.since)

    @property
    def address(self) -> str:
        """The address of its page."""
        query = {"since": self.since.isoformat(), "until": self.until.isoformat()}
        return f"{absolute('handover')}?{urlencode(query)}"

    @property
    def worst(self) -> Severity:
        """The worst severity of what is open."""
        return max((Severity(row.alert.severity) for row in self.open_rows), default=Severity.INFO)


def read(
    since: datetime,
    until: datetime,
    minimum: int = Severity.INFO,
    applications: Sequence[str] = (),
) -> Shift:
    """Read what happened from a moment until another, in a fixed number of statements."""
    alerts = Alert.objects.filter(severity__gte=minimum)
    events = AlertEvent.objects.filter(alert__severity__gte=minimum)
    if applications:
        alerts = alerts.filter(rule__application__in=applications)
        events = events.filter(alert__rule__application__in=applications)
    events = events.filter(at__gte=since, at__lt=until).order_by()
    still_open = alerts.filter(OPEN).exclude(state=Alert.State.PENDING)
    first_acknowledged = (
        events.filter(kind=Kind.ACKNOWLEDGED)
        .values("alert", opened=F("alert__opened_at"))
        .annotate(first=Min("at"))
    )
    waits = [max(timedelta(0), row["first"] - row["opened"]) for row in first_acknowledged]
    ended = events.filter(kind=Kind.RESOLVED).exclude(before=Alert.State.PENDING)
    lasted = ExpressionWrapper(F("at") - F("alert__opened_at"), output_field=DurationField())
    resolved = ended.aggregate(n=Count("alert", distinct=True), mean=Avg(lasted))
    open_rows = lists.listed(still_open).order_by("-severity", "opened_at", "pk")
    return Shift(
        since=since,
        until=until,
        opened=alerts.filter(opened_at__gte=since, opened_at__lt=until)
        .exclude(state=Alert.State.PENDING)
        .count(),
        acknowledged=len(waits),
        resolved=resolved["n"],
        open_rows=lists.rows(open_rows[:MOST_OPEN], until),
        open_count=still_open.count(),
        mean_to_acknowledge=sum(waits, timedelta(0)) / len(waits) if waits else None,
        mean_to_resolve=resolved["mean"],
        noisiest=_noisiest(events),
        changes=strips.of_period(events, since, until),
    )


def _noisiest(events: QuerySet[AlertEvent]) -> list[NoisyTarget]:
    names = ("alert__subject__name", "alert__rule__application", "alert__rule__name")
    counted = (
        events.filter(kind__in=NOISE)
        .values(*names)
        .annotate(n=Count("pk"))
        .order_by("-n", "alert__subject__name")[:MOST_NOISY]
    )
    rows = list(counted)
    most = rows[0]["n"] if rows else 1
    return [
        NoisyTarget(
            name=row[names[0]],
            rule=f"{row[names[1]]}/{row[names[2]]}",
            count=row["n"],
            bar=round(BAR * row["n"] / most),
        )
        for row in rows
    ]


def notice(shift: Shift) -> Notice:
    """Return the report of a shift, for whose shift begins."""
    named = [row.alert for row in shift.open_rows[:MOST_NAMED]]
    facts = {
        "Opened": str(shift.opened),
        "Acknowledged": _after(shift.acknowledged, shift.mtta),
        "Resolved": _after(shift.resolved, shift.mttr),
        "Fired, from start to end": _levels(shift.changes.fired),
        "Noisiest": ", ".join(f"{one.name} ({one.count})" for one in shift.noisiest[:5]) or "none",
        **{f"{number}. {_title(alert)}": _sentence(alert) for number, alert in enumerate(named, 1)},
    }
    if shift.open_count > len(named):
        facts["and"] = f"{shift.open_count - len(named)} more that are open"
    return Notice(
        title=f"{shift.open_count} open, {shift.opened} opened, {shift.resolved} resolved",
        severity=shift.worst,
        summary=f"The shift from {local(shift.since)} to {local(shift.until)}.",
        facts=facts,
        link=shift.address,
        status="handover",
    )


def _title(alert: Alert) -> str:
    return f"{Severity(alert.severity).label}: {alert.subject.name}"[:100]


def _sentence(alert: Alert) -> str:
    noted = f", acknowledged by {alert.acknowledged_by}" if alert.acknowledged_at else ""
    return f"{alert.get_state_display()} since {local(alert.opened_at)}{noted}."


def _levels(counts: Sequence[int]) -> str:
    """Return counts as a line of bars that a mail's text can have."""
    size = max(1, len(counts) // PARTS_IN_TEXT)
    parts = [sum(counts[start : start + size]) for start in range(0, len(counts), size)]
    most = max(parts) or 1
    return "".join(_LEVELS[round((len(_LEVELS) - 1) * part / most)] for part in parts)


def _after(count: int, mean: str) -> str:
    return f"{count}, after {mean} on average" if count else "0"


def _words(mean: timedelta | None) -> str:
    return in_words(mean) if mean is not None else "none"
