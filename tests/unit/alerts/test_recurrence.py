"""Silences that repeat."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice, pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from dateutil import rrule
from django.core.exceptions import ValidationError
from django.utils import timezone

from soc.alerts import recurrence
from soc.alerts.models import Silence

ZONE = ZoneInfo("America/Vancouver")


@pytest.fixture(autouse=True)
def in_vancouver() -> object:
    with timezone.override(ZONE):
        yield


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZONE)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("every sunday", "FREQ="),
        ("FREQ=MINUTELY", "FREQ="),
        ("FREQ=DAILY;BYHOUR=1,2", "leave BYHOUR out"),
        ("FREQ=WEEKLY;BYDAY=XX", "not an RRULE"),
        ("FREQ=WEEKLY;INTERVAL=soon", "not an RRULE"),
        ("FREQ=DAILY;INTERVAL=0", "INTERVAL is 1 at least"),
        ("FREQ=DAILY;COUNT=0", "COUNT is 1 at least"),
        ("FREQ=DAILY;COUNT=501", "use UNTIL"),
        ("FREQ=DAILY;COUNT=2;UNTIL=20271231", "by COUNT or by UNTIL"),
        ("FREQ=DAILY;UNTIL=soon", "a date or a time, like 20271231"),
        ("FREQ=YEARLY;BYEASTER=0", "unknown parameter"),
    ],
)
def test_a_bad_rule_is_refused_with_the_reason(rule: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        recurrence.validate(rule)


@pytest.mark.parametrize(
    "rule",
    [
        "FREQ=DAILY",
        "freq=weekly;byday=su",
        "FREQ=MONTHLY;BYDAY=2TU",
        "FREQ=DAILY;UNTIL=20271231T235959Z",
    ],
)
def test_good_rules_are_taken(rule: str) -> None:
    recurrence.validate(rule)
    start = at("2026-05-01 10:00")
    recurrence.check_window(rule, start, start + timedelta(hours=1))


@pytest.mark.parametrize(
    "rule",
    [
        "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=DAILY;INTERVAL=7;BYDAY=MO",
        "FREQ=WEEKLY;BYDAY=SU;BYSETPOS=2",
        "FREQ=DAILY;UNTIL=20200101T000000Z",
    ],
)
def test_a_rule_without_occurrences_is_refused_within_centuries(
    rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left alone, dateutil looks at each day until 9999."""
    months = 0
    rebuild = rrule._iterinfo.rebuild

    def counted(info: object, year: int, month: int) -> None:
        nonlocal months
        months += 1
        rebuild(info, year, month)

    monkeypatch.setattr(rrule._iterinfo, "rebuild", counted)
    friday = at("2026-05-01 10:00")
    with pytest.raises(ValidationError, match="never comes"):
        recurrence.check_window(rule, friday, friday + timedelta(hours=1))
    assert months <= 400 * 366


@pytest.mark.parametrize(
    ("until", "last"),
    [
        ("20260503T170000Z", "03"),
        ("20260503T165959Z", "02"),
        ("20260503T100000", "03"),
        ("20260503", "03"),
    ],
)
def test_a_rule_ends_at_its_moment(until: str, last: str) -> None:
    """The first window starts at 10:00, 17:00 UTC; a date is meant to its end."""
    start, end = at("2026-05-01 10:00"), at("2026-05-01 11:00")
    windows = recurrence.upcoming(start, end, f"FREQ=DAILY;UNTIL={until}", start)
    assert f"{timezone.localtime([begin for begin, _ in windows][-1]):%d}" == last


@pytest.mark.parametrize(
    "rule", ["FREQ=DAILY", "FREQ=DAILY;INTERVAL=3", "FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,SU"]
)
def test_the_age_of_a_rule_costs_nothing_and_changes_nothing(
    rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = at("1996-05-01 10:00")
    now = at("2026-05-01 00:00")
    expected = rrule.rrulestr(rule, dtstart=datetime(1996, 5, 1, 10)).xafter(datetime(2026, 5, 1))
    seen = []
    xafter = rrule.rrule.xafter

    def counted(dates: rrule.rrule, moment: datetime) -> object:
        seen.append(sum(1 for _ in dates.between(datetime(1, 1, 1), moment)))
        return xafter(dates, moment)

    monkeypatch.setattr(rrule.rrule, "xafter", counted)
    windows = recurrence.upcoming(start, start + timedelta(hours=1), rule, now)
    begins = [timezone.make_naive(begin) for begin, _ in islice(windows, 9)]
    assert begins == list(islice(expected, 9))
    assert seen[0] <= 4


def test_once_is_once() -> None:
    start, end = at("2026-05-01 10:00"), at("2026-05-01 11:00")
    assert recurrence.is_within(start, end, "", start)
    assert not recurrence.is_within(start, end, "", end)
    assert not recurrence.is_within(start, end, "", start - timedelta(seconds=1))


def test_a_weekly_window_stays_at_its_hour_when_the_clocks_change() -> None:
    start, end = at("2026-10-25 02:00"), at("2026-10-25 04:00")
    sundays = recurrence.upcoming(start, end, "FREQ=WEEKLY;BYDAY=SU", start)
    local = (timezone.localtime(begin) for begin, _ in sundays)
    assert [f"{begin:%d %H:%M %z}" for begin in islice(local, 3)] == [
        *("25 02:00 -0700", "01 02:00 -0800", "08 02:00 -0800")
    ]
    for day, inside in (("2026-11-01", True), ("2026-11-02", False), ("2026-11-08", True)):
        assert recurrence.is_within(start, end, "FREQ=WEEKLY", at(f"{day} 03:59")) == inside
        assert not recurrence.is_within(start, end, "FREQ=WEEKLY", at(f"{day} 04:00"))


def test_a_window_may_cross_midnight() -> None:
    start, end = at("2026-05-01 22:00"), at("2026-05-02 06:00")
    assert recurrence.is_within(start, end, "FREQ=DAILY", at("2026-05-20 05:59"))
    assert not recurrence.is_within(start, end, "FREQ=DAILY", at("2026-05-20 06:00"))


def test_a_silence_that_is_never_quiet_or_always_is_refused() -> None:
    start = at("2026-05-01 10:00")
    with pytest.raises(ValidationError, match="ends before it starts"):
        Silence(comment="x", starts_at=start, ends_at=start).full_clean()
    two_days = start + timedelta(days=2)
    with pytest.raises(ValidationError, match="repeats before it ends"):
        Silence(comment="x", starts_at=start, ends_at=two_days, recurrence="FREQ=DAILY").clean()


def test_a_rule_that_cannot_be_read_is_one_error_and_no_crash() -> None:
    start = at("2026-05-01 10:00")
    silence = Silence(comment="x", starts_at=start, ends_at=start + timedelta(hours=1))
    silence.recurrence = "FREQ=WEEKLY;BYDAY=XX"
    with pytest.raises(ValidationError, match="not an RRULE"):
        silence.full_clean()


# --- Days on which the clocks change ------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "start", "day", "begin", "end"),
    [
        # Skipped: the offset before the gap. The window announced is the one that is kept.
        ("Europe/Berlin", "2027-03-27 02:00", 28, "03:00+0200", "04:00+0200"),
        ("Europe/Berlin", "2027-03-27 02:30", 28, "03:30+0200", "04:30+0200"),
        ("Antarctica/Troll", "2027-03-27 01:30", 28, "03:30+0200", "04:30+0200"),
        ("Australia/Lord_Howe", "2027-10-02 02:15", 3, "02:45+1100", "03:45+1100"),
        # Twice: the first, and no second window.
        ("Europe/Berlin", "2027-10-30 02:30", 31, "02:30+0200", "02:30+0100"),
        ("Africa/Casablanca", "2024-03-09 02:30", 10, "02:30+0100", "02:30+0000"),
        # A window over the change lasts as long as the others.
        ("Europe/Berlin", "2027-03-27 01:30", 28, "01:30+0100", "03:30+0200"),
    ],
)
def test_a_window_on_the_day_of_a_clock_change(
    zone: str, start: str, day: int, begin: str, end: str
) -> None:
    with timezone.override(zone):
        first = datetime.fromisoformat(start).replace(tzinfo=ZoneInfo(zone))
        times = (first, first + timedelta(hours=1), "FREQ=DAILY")
        shown = [
            (timezone.localtime(begins), timezone.localtime(ends))
            for begins, ends in islice(recurrence.upcoming(*times, first), 3)
        ]
        window = next(pair for pair in shown if pair[0].day == day)
        assert tuple(f"{moment:%H:%M%z}" for moment in window) == (begin, end)
        from_first = [first.astimezone(UTC) + timedelta(minutes=n) for n in range(4 * 1440)]
        minutes = [minute for minute in from_first if minute <= shown[-1][1]]
        quiet = [minute for minute in minutes if recurrence.is_within(*times, minute)]
        announced = [m for m in minutes if any(begins <= m < ends for begins, ends in shown)]
        assert quiet == announced
        assert len(quiet) == 3 * 60


def test_a_day_that_a_zone_left_out_gives_one_window() -> None:
    """Samoa had no 30 December 2011: the window of that day is that of the next."""
    with timezone.override("Pacific/Apia"):
        start = datetime(2011, 12, 29, 10, tzinfo=ZoneInfo("Pacific/Apia"))
        windows = recurrence.upcoming(start, start + timedelta(hours=1), "FREQ=DAILY", start)
        days = [timezone.localtime(begin).day for begin, _ in islice(windows, 3)]
    assert days == [29, 31, 1]


def test_a_start_in_the_second_of_two_equal_hours_is_kept() -> None:
    with timezone.override("Europe/Berlin"):
        start = datetime(2027, 10, 31, 1, 30, tzinfo=UTC)
        windows = recurrence.upcoming(start, start + timedelta(hours=1), "FREQ=DAILY", start)
        assert next(windows)[0] == start
        assert not recurrence.is_within(
            start, start + timedelta(hours=1), "FREQ=DAILY", start - timedelta(minutes=1)
        )


@cache
def clock_changes() -> dict[tuple[datetime, timedelta, timedelta], str]:
    """Return a zone for each moment since 2007 and until 2037 at which offsets change."""
    found: dict[tuple[datetime, timedelta, timedelta], str] = {}
    minute = timedelta(minutes=1)
    weeks = [datetime(2007, 1, 1, tzinfo=UTC) + timedelta(weeks=n) for n in range(30 * 53)]
    for name in sorted(available_timezones()):
        zone = ZoneInfo(name)
        offsets = [week.astimezone(zone).utcoffset() for week in weeks]
        for (low, before), (high, after) in pairwise(zip(weeks, offsets, strict=True)):
            while before != after and high - low > minute:
                middle = low + (high - low) // minute // 2 * minute
                same = middle.astimezone(zone).utcoffset() == before
                low, high = (middle, high) if same else (low, middle)
            if before != after:
                found.setdefault((high, before, after), name)
    return found


def expected_begin(wall: datetime, zone: ZoneInfo, before: timedelta, after: timedelta) -> datetime:
    """Return the moment of a wall-clock time, found from the side of UTC alone."""
    moments = [(wall - offset).replace(tzinfo=UTC) for offset in (before, after)]
    shown = [m for m in moments if m.astimezone(zone).replace(tzinfo=None) == wall]
    return min(shown, default=moments[0])


def test_windows_keep_their_rule_at_every_clock_change_of_thirty_years() -> None:
    assert len(clock_changes()) > 1000
    hour = timedelta(hours=1)
    for (change, before, after), name in clock_changes().items():
        zone = ZoneInfo(name)
        earlier, later = sorted([before, after])
        with timezone.override(zone):
            for part in (-1, 0, 1, 2):
                wall = (change + earlier + (later - earlier) * part / 2).replace(tzinfo=None)
                walls = [wall + timedelta(days=day) for day in (-1, 0, 1)]
                begins = [expected_begin(one, zone, before, after) for one in walls]
                times = (begins[0], begins[0] + hour, "FREQ=DAILY")
                windows = list(islice(recurrence.upcoming(*times, begins[0]), 3))
                if len(set(begins)) == 3:
                    assert windows == [(begin, begin + hour) for begin in begins], (name, wall)
                second = timedelta(seconds=1)
                begin, end = begins[1], begins[1] + hour
                for moment in (begin - second, begin, end - second, end, change):
                    inside = any(one <= moment < one + hour for one in begins)
                    assert recurrence.is_within(*times, moment) == inside, (name, wall, moment)
