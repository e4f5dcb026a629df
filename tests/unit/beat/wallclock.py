"""What the wall clock of a zone reads all year: an oracle for crontabs.

It knows nothing of offsets: it looks at the clock every quarter of an hour (no zone changes its
offset in between) and writes down what it reads, what it never read, and what it read before.
"""

import functools
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from celery import schedules

from soc.beat.timing import SECOND, moment

MINUTE = timedelta(minutes=1)
QUARTER = 15
START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
ZONES = ("Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "America/Vancouver", "UTC")
"""Changes of an hour and of half an hour, offsets of half hours, both hemispheres, and none."""


@dataclass
class Day:
    """One day of the clock: quarters as (moment, hour, minute), whether read before, gaps."""

    quarters: list[tuple[int, int, int, bool]] = field(default_factory=list)
    left_out: list[tuple[int, datetime]] = field(default_factory=list)


@functools.cache
def days(zone: str) -> dict[date, Day]:
    """Return every day of the year as the clock shows it."""
    info, found = ZoneInfo(zone), {}
    at, last = START, START.astimezone(info).replace(tzinfo=None) - MINUTE
    while at < END:
        clock = at.astimezone(info).replace(tzinfo=None, fold=0)
        day = found.setdefault(clock.date(), Day())
        day.quarters.append((moment(at), clock.hour, clock.minute, clock <= last))
        while last + MINUTE < clock:
            last += MINUTE
            day.left_out.append((moment(at), last))
        last = max(last, clock + (QUARTER - 1) * MINUTE)
        at += QUARTER * MINUTE
    return found


def firings(fields: dict[str, str], zone: str) -> list[int]:
    """Return when a crontab fires in the year."""
    cron = schedules.crontab(**fields)
    by_the_clock = fields["minute"].startswith("*") or fields["hour"].startswith("*")
    found = set()
    for today, day in days(zone).items():
        if not (
            today.day in cron.day_of_month
            and today.month in cron.month_of_year
            and today.isoweekday() % 7 in cron.day_of_week
        ):
            continue
        for at, hour, minute, repeated in day.quarters:
            if hour in cron.hour and (by_the_clock or not repeated):
                found |= {
                    at + extra * 60 * SECOND
                    for extra in range(QUARTER)
                    if minute + extra in cron.minute
                }
        if not by_the_clock:
            found |= {
                at
                for at, clock in day.left_out
                if clock.hour in cron.hour and clock.minute in cron.minute
            }
    return sorted(found)
