#!/bin/sh
# An event of one hour (DURATION:PT1H) that recurs is two hours long, or none, on the day on which
# the clocks change: recurring-ical-events adds the duration on the wall clock.
#
# Software: recurring-ical-events 3.8.2 with icalendar 7.3.0 (PyPI); 2026-11-27.
# Guess: starts stay at their time of day, and each event lasts the hours that it names: RFC 5545,
#   3.3.6 says of a duration in hours that it is exact, and only one in days follows the clock.
# Expected: each of the events below lasts 1 h.
# Seen: daily at 02:30 in Berlin, 2 h on 2027-10-31 (02:30 summer time to 03:30 winter time) and
#   0 h for daily at 02:00 on 2027-03-28. Whoever blocks or silences by such a calendar is an hour
#   off, without an error.
# Exit 0: still so. Exit 1: the behaviour has changed.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT INT TERM
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
    recurring-ical-events==3.8.2 icalendar==7.3.0
"$folder/venv/bin/python" - <<'END'
from datetime import UTC, date
from importlib.metadata import version

import icalendar
import recurring_ical_events

TEXT = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//finding//EN
BEGIN:VEVENT
UID:1
DTSTAMP:20270101T000000Z
DTSTART;TZID=Europe/Berlin:{start}
DURATION:PT1H
RRULE:FREQ=DAILY;COUNT=3
END:VEVENT
END:VCALENDAR
"""


def hours(start: str) -> list[float]:
    calendar = icalendar.Calendar.from_ical(TEXT.format(start=start))
    events = recurring_ical_events.of(calendar).between(date(2027, 1, 1), date(2028, 1, 1))
    spans = [one.end.astimezone(UTC) - one.start.astimezone(UTC) for one in events]
    return [span.total_seconds() / 3600 for span in spans]


spring, autumn = hours("20270327T020000"), hours("20271030T023000")
print(f"version:  recurring-ical-events {version('recurring-ical-events')}")
print("expected: hours of each event: spring [1.0, 1.0, 1.0], autumn [1.0, 1.0, 1.0]")
print(f"seen:     hours of each event: spring {spring}, autumn {autumn}")
raise SystemExit((spring, autumn) != ([1, 0, 1], [1, 2, 1]))
END
