"""Times that repeat by an RRULE (RFC 5545, 3.3.10), in the site's own time.

A window from 02:00 to 04:00 stays there when the clocks change, so the arithmetic is done on the
wall clock.
"""

from collections.abc import Iterator
from datetime import datetime
from itertools import islice, pairwise

from dateutil.rrule import rrule, rrulestr
from django.core.exceptions import ValidationError
from django.utils import timezone

FREQUENCIES = ("DAILY", "WEEKLY", "MONTHLY", "YEARLY")
_TIMES_OF_DAY = ("BYHOUR", "BYMINUTE", "BYSECOND")

LOOKED_AT = 50
"""Repetitions that are compared with the length of one."""


def validate(rule: str) -> None:
    """Check an RRULE.

    Raises:
        ValidationError: it cannot be read, repeats within a day, or never comes.
    """
    parts = dict(part.partition("=")[::2] for part in rule.upper().split(";"))
    if parts.get("FREQ") not in FREQUENCIES:
        raise ValidationError(f"An RRULE has FREQ= and one of {', '.join(FREQUENCIES)}.")
    if timed := [name for name in _TIMES_OF_DAY if name in parts]:
        raise ValidationError(f"The start sets the time of day: leave {', '.join(timed)} out.")
    try:
        occurs = next(iter(_rule(rule, timezone.now())), None)
    except (ValueError, TypeError) as error:
        raise ValidationError(f"This is not an RRULE: {error}") from error
    if occurs is None:
        raise ValidationError("This RRULE never comes.")


def check_gap(rule: str, start: datetime, end: datetime) -> None:
    """Check that one repetition is over before the next begins.

    Raises:
        ValidationError: it is not.
    """
    length = _wall(end) - _wall(start)
    try:
        starts = islice(_rule(rule, start), LOOKED_AT)
    except (ValueError, TypeError):
        # ``validate`` says what is wrong with it.
        return
    if any(later - earlier < length for earlier, later in pairwise(starts)):
        raise ValidationError({"recurrence": "It repeats before it ends."})


def is_within(start: datetime, end: datetime, rule: str, now: datetime) -> bool:
    """Tell whether a moment lies between start and end, or within one of their repetitions."""
    if not rule:
        return start <= now < end
    here = _wall(now)
    latest = _rule(rule, start).before(here, inc=True)
    return latest is not None and here < latest + (_wall(end) - _wall(start))


def upcoming(
    start: datetime, end: datetime, rule: str, now: datetime
) -> Iterator[tuple[datetime, datetime]]:
    """Yield the start and the end of this and the next repetitions."""
    if not rule:
        if end > now:
            yield start, end
        return
    length = _wall(end) - _wall(start)
    for begin in _rule(rule, start).xafter(_wall(now) - length):
        yield timezone.make_aware(begin), timezone.make_aware(begin + length)


def _wall(moment: datetime) -> datetime:
    return timezone.make_naive(moment)


def _rule(rule: str, start: datetime) -> rrule:
    parsed = rrulestr(rule.upper(), dtstart=_wall(start))
    if not isinstance(parsed, rrule):
        raise ValueError("one rule is needed, not a set of them")
    return parsed
