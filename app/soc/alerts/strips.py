"""The last 24 hours as pictures: the states of one subject, and the changes of the whole site."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db.models import Count, Q, QuerySet
from django.db.models.functions import TruncHour, TruncMinute

from soc.alerts.lists import TONES
from soc.alerts.models import Alert, AlertEvent, Subject
from soc.alerts.spans import in_words
from soc.common import charts
from soc.common.charts import Stretch
from soc.core.severity import Severity

DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
QUARTER = timedelta(minutes=15)
QUARTERS = DAY // QUARTER

State = Alert.State

HEIGHT = 34
HEIGHTS = {
    State.FIRING: 32,
    State.FLAPPING: 26,
    State.ACKNOWLEDGED: 18,
    State.SUPPRESSED: 10,
    State.PENDING: 10,
    State.RESOLVED: 4,
}
"""Each state has a height of its own, so that nobody has to tell colours apart."""

QUIET = (State.PENDING, State.SUPPRESSED)


@dataclass(frozen=True)
class StripCondition:
    """A state with its severity, as the strip shows it."""

    state: State
    severity: Severity

    @property
    def label(self) -> str:
        """The condition in words."""
        if self.state == State.RESOLVED:
            return "no alert"
        return f"{self.state.label.lower()}, {self.severity.label}"

    @property
    def tone(self) -> str:
        """How it looks."""
        if self.state == State.RESOLVED:
            return "ok"
        return "idle" if self.state in QUIET else TONES[self.severity]

    @property
    def height(self) -> int:
        """Its height in the strip."""
        return HEIGHTS[self.state]

    @property
    def top(self) -> int:
        """Where it begins, so that it stands on the ground."""
        return HEIGHT - self.height


NOTHING = StripCondition(State.RESOLVED, Severity.OK)


@dataclass(frozen=True)
class Strip:
    """The conditions of one subject in 24 hours."""

    segments: Sequence[Stretch[StripCondition]]

    @property
    def legend(self) -> list[tuple[StripCondition, str]]:
        """The conditions that occur, each with its length in words, the longest first."""
        found = charts.lengths(self.segments, MINUTE)
        return [(condition, in_words(length)) for condition, length in found]

    @property
    def in_words(self) -> str:
        """The strip as a sentence."""
        return "; ".join(f"{condition.label} for {length}" for condition, length in self.legend)


def of_subject(subject: Subject, now: datetime) -> Strip:
    """Return the strip of a subject."""
    start = now - DAY
    lasting = Q(alert__resolved_at=None) | Q(alert__resolved_at__gt=start)
    events = AlertEvent.objects.filter(lasting, alert__subject=subject)
    before = events.filter(at__lte=start).order_by("-at", "-pk")[:1]
    within = events.filter(at__gt=start, at__lte=now).order_by("at", "pk")
    known = ("at", "after", "severity")
    return strip([*before.values_list(*known), *within.values_list(*known)], now)


def strip(changes: Iterable[tuple[datetime, str, int]], now: datetime) -> Strip:
    """Return the strip of changes: their times in order, with the state and severity after each."""
    conditions = (
        (at, NOTHING if state == State.RESOLVED else _condition(state, severity))
        for at, state, severity in changes
    )
    return Strip(charts.stretches(conditions, (now - DAY, now), MINUTE, NOTHING))


def _condition(state: str, severity: int) -> StripCondition:
    return StripCondition(State(state), Severity(severity))


@dataclass(frozen=True)
class AlertChanges:
    """How many alerts fired and were resolved in each 96th of a time, the oldest first."""

    fired: Sequence[int]
    resolved: Sequence[int]

    @property
    def highest(self) -> int:
        """The most of either in one part."""
        return max(*self.fired, *self.resolved)

    @property
    def fired_path(self) -> str:
        """The SVG path of the bars that stand on the middle line."""
        return self._bars(self.fired, -1)

    @property
    def resolved_path(self) -> str:
        """The SVG path of the bars that hang from it."""
        return self._bars(self.resolved, 1)

    @property
    def total_fired(self) -> int:
        """How many alerts fired in all."""
        return sum(self.fired)

    @property
    def total_resolved(self) -> int:
        """How many alerts were resolved in all."""
        return sum(self.resolved)

    def _bars(self, counts: Sequence[int], direction: int) -> str:
        # Room for two changes at least: a single one must not look like a storm.
        scale = 28 / max(self.highest, 2)
        return " ".join(
            f"M{10 * n + 1} {30 + direction}v{direction * max(2, round(scale * count))}h8V"
            f"{30 + direction}z"
            for n, count in enumerate(counts)
            if count
        )


def of_site(now: datetime) -> AlertChanges:
    """Return the changes of the whole site in 24 hours."""
    return of_period(AlertEvent.objects.all(), now - DAY, now)


def of_period(events: QuerySet[AlertEvent], since: datetime, until: datetime) -> AlertChanges:
    """Return the changes among events in a period, in 96 parts of it."""
    kinds = (AlertEvent.Kind.FIRED, AlertEvent.Kind.RESOLVED)
    part = (until - since) / QUARTERS
    # In whole minutes, or hours of a long time: the number of rows has a bound.
    whole = TruncMinute if until - since <= 2 * DAY else TruncHour
    counted = (
        events.filter(at__gt=since, at__lte=until, kind__in=kinds)
        .order_by()
        .values("kind", moment=whole("at", tzinfo=UTC))
        .annotate(n=Count("pk"))
    )
    bars = {str(kind): [0] * QUARTERS for kind in kinds}
    for row in counted:
        ago = min(QUARTERS - 1, max(0, (until - row["moment"]) // part))
        bars[row["kind"]][QUARTERS - 1 - ago] += row["n"]
    return AlertChanges(*bars.values())
