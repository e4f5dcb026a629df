"""Due times (`next_…_at`) that a clock wrote which was ahead.

Such a row would not fall due until that time comes: a host that believed in the year 2030 for a
minute would stop its scans for years, without an error.
"""

import logging
import zlib
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import (
    DateTimeField,
    DurationField,
    Expression,
    ExpressionWrapper,
    F,
    QuerySet,
    Value,
)
from django.db.models.expressions import Combinable

SLACK = timedelta(minutes=10)
"""What claims add, and by how much the clocks of two hosts may differ."""

MOST_AT_ONCE = 1000

logger = logging.getLogger(__name__)


def recall(rows: QuerySet[Any], field: str, longest: timedelta | Expression, now: datetime) -> int:
    """Make rows due now whose due time no clock that is right could have written.

    `longest` is how far ahead `field` is ever set: a time, or an expression of the rows that is
    one. Reads without locks, and writes only if there is such a row; returns how many there were.
    """
    latest: datetime | Combinable
    if isinstance(longest, timedelta):
        latest = now + longest + SLACK
    else:
        latest = Value(now + SLACK, output_field=DateTimeField()) + longest
    found = rows.filter(**{f"{field}__gt": latest}).values_list("pk", flat=True)
    ahead = list(found[:MOST_AT_ONCE])
    if not ahead:
        return 0
    logger.warning(
        "%d rows of %s were due later than ever happens: a clock was ahead. They are due now.",
        len(ahead),
        rows.model._meta.label,
    )
    made_due: int = rows.model._default_manager.filter(pk__in=ahead).update(**{field: now})
    return made_due


def minutes(column: str) -> Expression:
    """Return a column of whole minutes as a duration, which databases keep in microseconds."""
    return ExpressionWrapper(F(column) * 60_000_000, output_field=DurationField())


def slot_after(name: str, interval_minutes: int, moment: datetime) -> datetime:
    """Return the next turn after a moment of what recurs in an interval.

    Each name has its own place in the interval: however many are imported, or run by hand at once,
    they stay spread.
    """
    interval = interval_minutes * 60
    offset = zlib.crc32(name.encode()) % interval
    turns = (int(moment.timestamp()) - offset) // interval + 1
    return datetime.fromtimestamp(turns * interval + offset, UTC)
