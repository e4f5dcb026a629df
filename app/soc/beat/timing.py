"""When a schedule fires: pure arithmetic on moments.

A moment is a whole number of microseconds since 1970 in UTC. Integers neither drift nor round, and
what daylight saving does to a schedule is decided here and nowhere else.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Protocol

from celery import schedules

SECOND = 1_000_000
SHORTEST_INTERVAL = SECOND // 20
"""An interval below this many microseconds fires at every n-th of its times."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MINUTE = 60 * SECOND
_FARTHEST_YEARS = 41
"""The 29th of February falls on a given weekday at least this often (across 2100)."""


def moment(at: datetime) -> int:
    """Return an aware time as a moment."""
    return (at - _EPOCH) // _MICROSECOND


def as_datetime(at: int) -> datetime:
    """Return a moment as a time in UTC."""
    return _EPOCH + timedelta(microseconds=at)


class Timing(Protocol):
    """One schedule; entries that have the same one share it."""

    def after(self, at: int) -> int | None:
        """Return the first moment later than ``at`` at which it fires, None if there is none."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Fires every ``every`` microseconds, counted from ``anchor`` both ways: it cannot drift."""

    every: int
    anchor: int

    def after(self, at: int) -> int:
        """Return the first firing later than ``at``."""
        step = self.every * -(-SHORTEST_INTERVAL // self.every)
        return self.anchor + ((at - self.anchor) // step + 1) * step


@dataclass(frozen=True, slots=True)
class Clocked:
    """Fires once."""

    when: int

    def after(self, at: int) -> int | None:
        """Return its time if that is still to come."""
        return self.when if self.when > at else None


@dataclass
class Solar:
    """Fires at an event of the sun; ``following`` computes the next one (Celery's, by ephem)."""

    following: Callable[[datetime], datetime]
    _from: int = field(default=0, init=False)
    _next: int = field(default=0, init=False)

    def after(self, at: int) -> int:
        """Return the first event later than ``at``."""
        if not self._from <= at < self._next:
            found = moment(self.following(as_datetime(at)))
            self._from, self._next = at, found
        return self._next


class Crontab:
    """Fires when the wall clock of a time zone reads one of the crontab's times.

    Where the clock is put forward or back, cron(8) of Debian is followed. A crontab whose minute
    or hour begins with ``*`` fires whenever the clock reads so: never in an hour that is left out,
    again in an hour that is repeated. Any other crontab means fixed times of day: one that is left
    out fires at the end of the gap, one that is repeated fires the first time only.

    Fields are Celery's crontab strings; day of month, day of week and month must all match.

    Raises:
        ValueError: a field cannot be read, or no day ever matches.
    """

    def __init__(
        self,
        minute: str,
        hour: str,
        day_of_week: str,
        day_of_month: str,
        month_of_year: str,
        zone: tzinfo,
    ) -> None:
        try:
            fields = schedules.crontab(minute, hour, day_of_week, day_of_month, month_of_year)
        except schedules.ParseException as error:
            raise ValueError(f"the crontab cannot be read: {error}") from error
        self._times = sorted((h, m) for h in fields.hour for m in fields.minute)
        self._weekdays = fields.day_of_week
        self._days = sorted(fields.day_of_month)
        self._months = fields.month_of_year
        self._zone = zone
        self._following = (
            self._next_reading if minute[:1] == "*" or hour[:1] == "*" else self._next_fixed_time
        )
        self._from, self._next = 0, 0

    def after(self, at: int) -> int | None:
        """Return the first firing later than ``at``."""
        # Entries that share the crontab ask the same question one after the other.
        if not self._from <= at < self._next:
            found = self._following(at)
            if found is None:
                return None
            self._from, self._next = at, found
        return self._next

    def _next_reading(self, at: int) -> int | None:
        """Follow the clock's readings; between two changes of its offset they are even."""
        while True:
            offset = self._offset(at)
            wall = self._later_match(at + offset, strictly=True)
            if wall is None:
                return None
            found = wall - offset
            if self._offset(found) == offset and self._offset_kept(at, found):
                return found
            change = self._first_change(at, found)
            opening = change + self._offset(change)
            if self._later_match(opening, strictly=False) == opening:
                return change
            at = change

    def _next_fixed_time(self, at: int) -> int | None:
        """Go through the times of day; what they mean in UTC never decreases."""
        wall = self._later_match(at + self._offset(at), strictly=True)
        while wall is not None:
            found = self._first_meaning(wall)
            if found > at:
                return found
            wall = self._later_match(wall, strictly=True)
        return None

    def _first_meaning(self, wall: int) -> int:
        """Return the first moment at which the clock reads ``wall``, or the end of the gap."""
        found = wall - _offset(as_datetime(wall).replace(tzinfo=self._zone, fold=0))
        # In a gap the first offset leads to a later reading than the one that was asked for.
        if self._offset(found) + found == wall:
            return found
        return self._first_change(found - 24 * 3600 * SECOND, found)

    def _offset(self, at: int) -> int:
        return _offset(as_datetime(at).astimezone(self._zone))

    def _offset_kept(self, start: int, end: int) -> bool:
        """Whether the offset is the same all the way; two changes may undo each other."""
        if end - start < 12 * 3600 * SECOND:
            return True
        offset, day = self._offset(start), 24 * 3600 * SECOND
        return all(self._offset(at) == offset for at in range(start, end, day))

    def _first_change(self, start: int, end: int) -> int:
        """Return the first moment in ``(start, end]`` that has another offset than ``start``."""
        offset, day = self._offset(start), 24 * 3600 * SECOND
        late = next((at for at in range(start + day, end, day) if self._offset(at) != offset), end)
        early = max(start, late - day)
        while late - early > 1:
            middle = (early + late) // 2
            if self._offset(middle) == offset:
                early = middle
            else:
                late = middle
        return late

    def _later_match(self, wall: int, *, strictly: bool) -> int | None:
        """Return the first matching reading of the clock after ``wall``, or at it."""
        start = as_datetime(wall)
        time = (start.hour, start.minute)
        on_the_minute = wall % _MINUTE == 0
        find = bisect_right if strictly or not on_the_minute else bisect_left
        index = find(self._times, time)
        day: date | None = start.date()
        if not self._matches(start) or index == len(self._times):
            day, index = self._later_day(start), 0
        if day is None:
            return None
        hour, minute = self._times[index]
        return moment(datetime(day.year, day.month, day.day, hour, minute, tzinfo=UTC))

    def _matches(self, day: date) -> bool:
        return (
            day.month in self._months
            and day.day in self._days
            and day.isoweekday() % 7 in self._weekdays
        )

    def _later_day(self, day: date) -> date | None:
        """Return the first matching day after ``day``."""
        last_day_before = day.day
        for month in range(day.month - 1, day.month + 12 * _FARTHEST_YEARS):
            year, month_index = day.year + month // 12, month % 12 + 1
            if month_index in self._months:
                for number in self._days[bisect_right(self._days, last_day_before) :]:
                    try:
                        found = date(year, month_index, number)
                    except ValueError:
                        break
                    if found.isoweekday() % 7 in self._weekdays:
                        return found
            last_day_before = 0
        return None


@dataclass(frozen=True, slots=True)
class Started:
    """A schedule that does not fire before its start time."""

    timing: Timing
    start: int

    def after(self, at: int) -> int | None:
        """Return the first firing later than ``at`` and not before the start."""
        return self.timing.after(max(at, self.start - 1))


def _offset(at: datetime) -> int:
    """Return a zone's offset at an aware time; only a naive time has none."""
    return (at.utcoffset() or timedelta()) // _MICROSECOND
