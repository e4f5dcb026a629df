#!/bin/sh
# A daily recurrence at a time that the clocks skip is an hour late on the day after as well, when
# that time exists again: libical counts on from the moved time once.
#
# Software: libical 3.0.20 by ICalGLib (gir1.2-ical-3.0 of Debian 13); 2026-11-27.
# Guess: on the day of the gap the time is taken with the offset before it (RFC 5545, 3.3.5), which
#   shows as 03:30; before and after it is 02:30, as RRULE counts on the wall clock (3.3.10).
# Expected: Berlin, FREQ=DAILY from 2027-03-27 02:30: 02:30, 03:30, 02:30, 02:30.
# Seen: 02:30, 03:30, 03:30, 02:30. The same rule from 2027-03-29 on is at 02:30 on that day, so
#   whether an event of the 29th is right depends on the start of its rule.
# Exit 0: still so. Exit 1: the behaviour has changed.
set -eu

base=${BASE:-soc-offline/debian:trixie}
docker image inspect "$base" >/dev/null 2>&1 || base=debian:trixie
folder=$(mktemp -d)
image=
cleanup() {
    [ -z "$image" ] || docker rmi -f "$image" >/dev/null 2>&1 || true
    rm -rf "$folder"
}
trap cleanup EXIT INT TERM

cat > "$folder/Dockerfile" <<END
FROM $base
RUN apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y \
    --no-install-recommends gir1.2-ical-3.0 python3-gi tzdata >/dev/null
END
image=$(docker build --quiet --network host "$folder")
docker run --rm --interactive --network none "$image" sh -eu <<'END'
echo "version:  $(dpkg-query -W libical3t64 gir1.2-ical-3.0 | tr '\t\n' '  ')"
python3 - <<'CODE'
import gi

gi.require_version("ICalGLib", "3.0")
from gi.repository import ICalGLib


def times(start: str) -> list[str]:
    first = ICalGLib.Time.new_from_string(start)
    first.set_timezone(ICalGLib.Timezone.get_builtin_timezone("Europe/Berlin"))
    rule = ICalGLib.Recurrence.new_from_string("FREQ=DAILY;COUNT=4")
    dates = ICalGLib.RecurIterator.new(rule, first)
    return [dates.next().as_ical_string()[-6:-2] for _ in range(4)]


through, after = times("20270327T023000"), times("20270329T023000")
print("expected: ['0230', '0330', '0230', '0230'] through the change, 0230 after it")
print(f"seen:     {through} through the change, {after} after it")
raise SystemExit((through, after) != (["0230", "0330", "0330", "0230"], ["0230"] * 4))
CODE
END
