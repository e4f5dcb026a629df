"""Pictures as SVG paths, which need neither a script nor a style of their own."""

from collections.abc import Iterable
from datetime import datetime, timedelta

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
