"""Pictures as SVG paths, which need neither a script nor a style of their own."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

Value = TypeVar("Value")

SPARK_WIDTH, SPARK_HEIGHT = 120, 32
"""The view box of a sparkline: two units a minute."""


def sparkline(now: datetime, points: Iterable[tuple[datetime, float]], scale: float) -> str:
    """Return the SVG path of values over the last hour: the highest of each minute.

    The line is broken where there is no value; one of ``scale`` reaches the top.
    """
    minutes: dict[int, float] = {}
    for at, value in points:
        minute = 60 - min(60, max(0, round((now - at) / timedelta(minutes=1))))
        minutes[minute] = max(minutes.get(minute, 0), value)
    parts = []
    for minute, value in sorted(minutes.items()):
        x = minute * SPARK_WIDTH / 60
        y = SPARK_HEIGHT - 1 - value / scale * (SPARK_HEIGHT - 2)
        # A line of no length is a dot: a minute without neighbours shows too.
        parts.append(f"L{x:g} {y:.1f}" if minute - 1 in minutes else f"M{x:g} {y:.1f}h0")
    return " ".join(parts)


@dataclass(frozen=True)
class Stretch(Generic[Value]):
    """How long a value lasted; in units of time from a strip's left end."""

    value: Value
    x: float
    width: float


def stretches(
    changes: Iterable[tuple[datetime, Value]],
    span: tuple[datetime, datetime],
    unit: timedelta,
    before: Value | None = None,
) -> list[Stretch[Value]]:
    """Return a strip: the values that changes lead to, the oldest first, within a span of time.

    Nothing is drawn before the first change if there is no value `before` it.
    """
    start, end = span
    drawn: list[Stretch[Value]] = []
    since, current = start, before

    def close(until: datetime) -> None:
        if current is not None and until > since:
            x, width = (since - start) / unit, (until - since) / unit
            drawn.append(Stretch(current, round(x, 2), round(width, 2)))

    for at, value in changes:
        if value != current:
            close(max(at, start))
            since, current = max(at, start), value
    close(end)
    return drawn


def lengths(drawn: Sequence[Stretch[Value]], unit: timedelta) -> list[tuple[Value, timedelta]]:
    """Return how long each value lasted in all, the longest first."""
    units: defaultdict[Value, float] = defaultdict(float)
    for stretch in drawn:
        units[stretch.value] += stretch.width
    longest_first = sorted(units.items(), key=lambda item: item[1], reverse=True)
    return [(value, length * unit) for value, length in longest_first]


@dataclass(frozen=True)
class Bars:
    """The last values of something: a bar for each, a full mark for each that is missing.

    The newest stands at the right.
    """

    bars: str
    failures: str
    highest: float
    failed: int
    count: int


def bars(
    recent: Sequence[float | None], *, width: int, height: int, bar: int, least: float
) -> Bars:
    """Return the picture of values, None for a missing one; the highest, or `least`, fills it."""
    most = width // bar
    shown = recent[-most:]
    known = [value for value in shown if value is not None]
    highest = max(known, default=0)
    scale = (height - 1) / max(highest, least)
    drawn, failures = [], []
    for position, value in enumerate(shown, most - len(shown)):
        x = position * bar
        if value is None:
            failures.append(f"M{x} 0h{bar - 1}v{height}h-{bar - 1}z")
        else:
            tall = max(1.0, round(value * scale, 1))
            drawn.append(f"M{x} {height}v-{tall:g}h{bar - 1}v{tall:g}z")
    missing = len(shown) - len(known)
    return Bars(" ".join(drawn), " ".join(failures), highest, missing, len(shown))


@dataclass(frozen=True)
class Segment(Generic[Value]):
    """One part of a stacked bar of 1000 units."""

    value: Value
    x: float
    width: float
    length: float


def segments(lengths: Iterable[tuple[Value, float]], total: float) -> list[Segment[Value]]:
    """Return the parts of a bar, one behind the other; parts of `total` in all fill it."""
    scale = 1000 / total if total else 0
    x, made = 0.0, []
    for value, length in lengths:
        made.append(Segment(value, round(x, 1), round(length * scale, 1), length))
        x += length * scale
    return made
