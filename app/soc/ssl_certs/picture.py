"""The expiries of the next twelve months as a picture."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

WEEKS = 52
YEAR = timedelta(weeks=WEEKS)

HEIGHT = 60
STEP = 20
"""The width of a week; a year is 1040 wide."""

SOON, NEAR = 1, 4
"""Weeks whose expiries look bad, and warning."""


@dataclass(frozen=True)
class Bar:
    """The expiries of one week."""

    week: int
    start: date
    count: int
    height: int

    @property
    def x(self) -> int:
        """Its left end."""
        return self.week * STEP + 2

    @property
    def top(self) -> int:
        """Where it begins, so that it stands on the ground."""
        return HEIGHT - self.height

    @property
    def tone(self) -> str:
        """How it looks."""
        if self.week < SOON:
            return "bad"
        return "warn" if self.week < NEAR else "info"


@dataclass(frozen=True)
class Month:
    """The name of a month, where it begins."""

    x: int
    name: str


@dataclass(frozen=True)
class Picture:
    """A bar for each week with expiries, and the months beneath."""

    bars: Sequence[Bar]
    months: Sequence[Month]

    @property
    def total(self) -> int:
        """How many certificates expire in the year."""
        return sum(bar.count for bar in self.bars)

    @property
    def soon(self) -> int:
        """How many expire within four weeks."""
        return sum(bar.count for bar in self.bars if bar.week < NEAR)

    @property
    def highest(self) -> int:
        """The most in a week."""
        return max((bar.count for bar in self.bars), default=0)


def draw(days: Iterable[tuple[date, int]], now: datetime) -> Picture:
    """Return the picture of expiries by their days (UTC)."""
    today = now.astimezone(UTC).date()
    counts = [0] * WEEKS
    for day, count in days:
        counts[min(WEEKS - 1, max(0, (day - today).days // 7))] += count
    # Room for four at least: a single one must not look like a storm.
    scale = (HEIGHT - 4) / max(*counts, 4)
    bars = [
        Bar(week, today + timedelta(weeks=week), count, max(3, round(scale * count)))
        for week, count in enumerate(counts)
        if count
    ]
    return Picture(bars, _months(today))


def _months(today: date) -> list[Month]:
    firsts = []
    first = today.replace(day=1)
    for _ in range(12):
        first = (first + timedelta(days=32)).replace(day=1)
        firsts.append(first)
    return [Month(round((day - today).days / 7 * STEP), f"{day:%b}") for day in firsts]
