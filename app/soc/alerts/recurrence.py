"""Times that repeat by an RRULE (RFC 5545, 3.3.10), in the site's own time.

A window from 02:00 stays there when the clocks change, so the dates come from the wall clock. Each
one becomes a moment as RFC 5545, 3.3.5 says: a time that the clocks skip is taken with the offset
before the gap, one that comes twice is the first. A window lasts as long as the first one did
(3.8.2.2: "the same exact duration"), whatever the clocks do meanwhile.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import MAXYEAR, UTC, datetime, time, timedelta
from functools import lru_cache
from itertools import islice, pairwise

from dateutil.rrule import rrule, rrulestr
from django.core.exceptions import ValidationError
from django.utils import timezone

from soc.common import times

FREQUENCIES = ("DAILY", "WEEKLY", "MONTHLY", "YEARLY")
_TIMES_OF_DAY = ("BYHOUR", "BYMINUTE", "BYSECOND")

LOOKED_AT = 50
"""Repetitions that are compared with the length of one."""

MOST_COUNTED = 500
"""COUNT at most: its repetitions are gone through at each look, those of UNTIL are not."""

_CYCLE = 400
"""Years after which the Gregorian calendar has the same leap years and weekdays."""

_CLOCK_CHANGE = timedelta(hours=24)
"""No zone has moved its clocks by more: Samoa and Tokelau left out a day in 2011."""


def validate(rule: str) -> None:
    """Check an RRULE without the time that it starts at.

    Raises:
        ValidationError: it cannot be read, repeats within a day, or counts further than
            ``MOST_COUNTED``.
    """
    parts = _parts(rule)
    if parts.get("FREQ") not in FREQUENCIES:
        raise ValidationError(f"An RRULE has FREQ= and one of {', '.join(FREQUENCIES)}.")
    if timed := [name for name in _TIMES_OF_DAY if name in parts]:
        raise ValidationError(f"The start sets the time of day: leave {', '.join(timed)} out.")
    if "COUNT" in parts and "UNTIL" in parts:
        raise ValidationError("An RRULE ends by COUNT or by UNTIL: leave one of them out.")
    try:
        _Repetition.read(rule, timezone.now())
    except (ValueError, TypeError, OverflowError) as error:
        raise ValidationError(f"This is not an RRULE: {error}") from error
    if int(parts.get("COUNT", 1)) > MOST_COUNTED:
        raise ValidationError(f"COUNT is {MOST_COUNTED} at most: use UNTIL for a later end.")


def check_window(rule: str, start: datetime, end: datetime) -> None:
    """Check that a window comes at all, and that one is over before the next begins.

    Raises:
        ValidationError: it does not come, or repeats too soon.
    """
    try:
        repetition = _Repetition.read(rule, start)
    except (ValueError, TypeError, OverflowError):
        # ``validate`` says what is wrong with it.
        return
    if not repetition.occurs():
        raise ValidationError({"recurrence": "This RRULE never comes."})
    length = _elapsed(start, end)
    walls = islice(repetition.dates, LOOKED_AT)
    if any(later - earlier < length for earlier, later in pairwise(walls)):
        raise ValidationError({"recurrence": "It repeats before it ends."})


def is_within(start: datetime, end: datetime, rule: str, now: datetime) -> bool:
    """Return whether a moment lies between start and end, or within one of their repetitions."""
    window = next(upcoming(start, end, rule, now), None)
    return window is not None and window[0] <= now


def upcoming(
    start: datetime, end: datetime, rule: str, now: datetime
) -> Iterator[tuple[datetime, datetime]]:
    """Yield the start and the end of this and the next repetitions, in UTC."""
    length = _elapsed(start, end)
    starts = _Repetition.read(rule, start).after(now - length) if rule else iter([start])
    for begin in starts:
        if begin + length > now:
            yield begin, begin + length


@dataclass(frozen=True, slots=True)
class _Repetition:
    """A start and its rule: dates on the wall clock, and the moment after which there are none."""

    start: datetime
    dates: rrule
    step: timedelta | None
    """What the start of the dates can be moved by without changing later ones."""
    until: datetime | None

    @classmethod
    def read(cls, rule: str, start: datetime) -> "_Repetition":
        """Read a rule that begins at a moment.

        Raises:
            ValueError, TypeError, OverflowError: it is not an RRULE.
        """
        parts = _parts(rule)
        # The end is a moment (3.3.10 wants it in UTC), the dates are none yet: kept apart.
        until = _end(parts.pop("UNTIL")) if "UNTIL" in parts else None
        text = ";".join(f"{name}={value}" for name, value in parts.items())
        dates = _dates(text, _wall(start))
        # dateutil knows an Easter that no RFC does, and goes on for ever at INTERVAL=0.
        if "BYEASTER" in parts:
            raise ValueError("unknown parameter 'BYEASTER'")
        for name in ("INTERVAL", "COUNT"):
            if int(parts.get(name, 1)) < 1:
                raise ValueError(f"{name} is 1 at least")
        # Months and years are few enough to go through; a count begins at its start.
        days = 0 if "COUNT" in parts else {"DAILY": 1, "WEEKLY": 7}.get(parts["FREQ"], 0)
        step = timedelta(days=days * int(parts.get("INTERVAL", 1))) or None
        return cls(start, dates, step, until)

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Yield the moments after another, each once, in UTC."""
        first = _wall(self.start)
        earliest = _wall(moment) - _CLOCK_CHANGE
        last = moment
        for wall in self._dates_near(earliest).xafter(earliest):
            if wall.year == MAXYEAR:
                return
            # The start may be the second of two equal times: who set it knew which.
            begin = self.start.astimezone(UTC) if wall == first else times.moment(wall)
            if self.until is not None and begin > self.until:
                return
            # Where a zone left out a day, two dates are one moment.
            if begin > last:
                yield begin
                last = begin

    def occurs(self) -> bool:
        """Return whether there is a repetition within centuries.

        dateutil looks until the year 9999, which takes seconds. So it is asked in the last cycle
        of the calendar before, which has the same dates.
        """
        start = _wall(self.start)
        later = (MAXYEAR - start.year) // _CYCLE * _CYCLE
        found = next(iter(self.dates.replace(dtstart=_in_years(start, later))), None)
        if found is None:
            return False
        return self.until is None or times.moment(_in_years(found, -later)) <= self.until

    def _dates_near(self, wall: datetime) -> rrule:
        start = _wall(self.start)
        if self.step is None or wall <= start:
            return self.dates
        return self.dates.replace(dtstart=start + (wall - start) // self.step * self.step)


def _parts(rule: str) -> dict[str, str]:
    return {name: value for name, _, value in (p.partition("=") for p in rule.upper().split(";"))}


@lru_cache(maxsize=256)
def _dates(rule: str, start: datetime) -> rrule:
    # Each look at silences asks again, so the months and years gone through are remembered.
    dates = rrulestr(rule, dtstart=start, cache=True)
    if not isinstance(dates, rrule):
        raise ValueError("one rule is needed, not a set of them")
    return dates


def _end(until: str) -> datetime:
    """Return the moment that UNTIL names: in UTC with a Z, else on the wall clock.

    Raises:
        ValueError: it is no date and no time.
    """
    for form in ("%Y%m%dT%H%M%SZ", "%Y%m%dT%H%M%S", "%Y%m%d"):
        try:
            end = datetime.strptime(until, form)
        except ValueError:
            continue
        if form.endswith("Z"):
            return end.replace(tzinfo=UTC)
        return times.moment(end if "T" in form else datetime.combine(end, time.max))
    raise ValueError(f"UNTIL is a date or a time, like 20271231 or 20271231T235959Z: {until}")


def _elapsed(start: datetime, end: datetime) -> timedelta:
    # Two times of one zone would give the difference on the wall clock.
    return end.astimezone(UTC) - start.astimezone(UTC)


def _wall(moment: datetime) -> datetime:
    return timezone.make_naive(moment).replace(fold=0)


def _in_years(wall: datetime, years: int) -> datetime:
    return wall.replace(year=wall.year + years)
