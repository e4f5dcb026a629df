"""When schedules fire."""

import os
from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wallclock import END, START, ZONES, firings

from soc.beat.timing import (
    SECOND,
    SHORTEST_INTERVAL,
    Clocked,
    Crontab,
    Interval,
    Started,
    Timing,
    as_datetime,
    moment,
)

FIRST, LAST = moment(START), moment(END)
ONCE_A_YEAR = {
    "minute": "*/30", "hour": "2", "day_of_week": "*", "day_of_month": "25", "month_of_year": "10",
}  # fmt: skip
"""In the night in which the clock is put back; its next day has the offset of the first hour."""

YEARS = int(os.environ.get("BEAT_YEARS", "5"))
"""Random crontabs whose year is lived through; a year takes a second at worst."""

FIELDS = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")


def field(first: int, last: int) -> st.SearchStrategy[str]:
    numbers = st.integers(first, last)
    return st.one_of(
        st.just("*"),
        numbers.map(str),
        st.sets(numbers, min_size=1, max_size=5).map(lambda some: ",".join(map(str, some))),
        st.tuples(numbers, numbers).map(lambda ends: "{}-{}".format(*sorted(ends))),
        st.integers(1, last).map(lambda step: f"*/{step}"),
    )


crontabs = st.fixed_dictionaries(
    {
        "minute": field(0, 59),
        "hour": field(0, 23),
        "day_of_week": field(0, 6),
        "day_of_month": field(1, 28),
        "month_of_year": field(1, 12),
    }
)


def crontab(zone: str = "UTC", **fields: str) -> Crontab:
    values = dict.fromkeys(FIELDS, "*") | fields
    return Crontab(*(values[name] for name in FIELDS), ZoneInfo(zone))


def between(timing: Timing, start: int, end: int) -> list[int]:
    """All firings in [start, end), one after the other."""
    found = []
    at = timing.after(start - 1)
    while at is not None and at < end:
        found.append(at)
        at = timing.after(at)
    return found


def local(at: int, zone: str) -> str:
    return f"{as_datetime(at).astimezone(ZoneInfo(zone)):%m-%d %H:%M %z}"


@settings(max_examples=YEARS, deadline=None)
@given(fields=crontabs, zone=st.sampled_from(ZONES))
@example(dict.fromkeys(FIELDS, "*") | {"minute": "*/30", "hour": "1-3"}, "Europe/Berlin")
@example(dict.fromkeys(FIELDS, "*") | {"minute": "30", "hour": "1,2,3"}, "Europe/Berlin")
@example(dict.fromkeys(FIELDS, "*") | {"minute": "0,15,45", "hour": "2"}, "Australia/Lord_Howe")
@example(dict.fromkeys(FIELDS, "*") | {"minute": "*/7", "hour": "2"}, "Australia/Lord_Howe")
@example(dict.fromkeys(FIELDS, "*") | {"minute": "30"}, "Europe/Berlin")
@example(ONCE_A_YEAR, "Europe/Berlin")
def test_a_crontab_fires_all_year_when_a_clock_on_the_wall_says_so(
    fields: dict[str, str], zone: str
) -> None:
    assert between(crontab(zone, **fields), FIRST, LAST) == firings(fields, zone)


@settings(max_examples=50, deadline=None)
@given(fields=crontabs, zone=st.sampled_from(ZONES), at=st.integers(FIRST, LAST))
def test_it_does_not_matter_from_where_one_looks(
    fields: dict[str, str], zone: str, at: int
) -> None:
    timing = crontab(zone, **fields)
    found = timing.after(at)
    if found is not None:
        assert found > at
        assert crontab(zone, **fields).after(found - 1) == found
        assert crontab(zone, **fields).after((at + found) // 2) == found


def test_a_fixed_time_that_is_left_out_fires_when_the_gap_ends() -> None:
    timing = crontab("Europe/Berlin", minute="30", hour="2")
    start = moment(datetime(2026, 3, 28, 12, tzinfo=UTC))
    assert [local(at, "Europe/Berlin") for at in (timing.after(start),)] == ["03-29 03:00 +0200"]


def test_a_fixed_time_that_is_repeated_fires_the_first_time() -> None:
    timing = crontab("Europe/Berlin", minute="30", hour="2")
    start, end = datetime(2026, 10, 25, tzinfo=UTC), datetime(2026, 10, 26, tzinfo=UTC)
    fired = between(timing, moment(start), moment(end))
    assert [local(at, "Europe/Berlin") for at in fired] == ["10-25 02:30 +0200"]


def test_every_half_hour_fires_in_the_repeated_hour_too() -> None:
    timing = crontab("Europe/Berlin", minute="*/30")
    start, end = datetime(2026, 10, 24, 23, 30, tzinfo=UTC), datetime(2026, 10, 25, 2, tzinfo=UTC)
    fired = between(timing, moment(start), moment(end))
    assert {later - earlier for earlier, later in pairwise(fired)} == {1800 * SECOND}
    assert [local(at, "Europe/Berlin")[6:] for at in fired] == [
        "01:30 +0200", "02:00 +0200", "02:30 +0200", "02:00 +0100", "02:30 +0100",
    ]  # fmt: skip


def test_the_29th_of_february_on_a_monday_is_found_decades_ahead() -> None:
    timing = crontab(minute="0", hour="0", day_of_month="29", month_of_year="2", day_of_week="1")
    found = timing.after(moment(datetime(2072, 3, 1, tzinfo=UTC)))
    assert found is not None
    assert as_datetime(found) == datetime(2112, 2, 29, tzinfo=UTC)


@pytest.mark.parametrize(
    "fields",
    [
        {"minute": "61"},
        {"hour": "x"},
        {"minute": ""},
        {"minute": "*/0"},
        {"day_of_month": "30", "month_of_year": "2"},
    ],
)
def test_a_crontab_that_cannot_be_read_is_a_value_error(fields: dict[str, str]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        crontab(**fields)


@given(
    every=st.integers(1, 400 * 24 * 3600 * SECOND),
    anchor=st.integers(FIRST, LAST),
    at=st.integers(FIRST - 10**14, LAST + 10**14),
)
def test_an_interval_never_leaves_its_phase(every: int, anchor: int, at: int) -> None:
    found = Interval(every, anchor).after(at)
    assert found > at
    assert (found - anchor) % every == 0
    assert found - at <= max(every, 2 * SHORTEST_INTERVAL)


def test_an_interval_with_a_start_begins_there() -> None:
    timing = Started(Interval(10 * SECOND, anchor=LAST), LAST)
    assert timing.after(FIRST) == LAST
    assert timing.after(LAST) == LAST + 10 * SECOND


def test_a_time_comes_once() -> None:
    assert Clocked(10).after(9) == 10
    assert Clocked(10).after(10) is None


def test_nothing_fires_before_its_start_and_the_start_itself_counts() -> None:
    hourly = crontab(minute="0")
    noon = moment(datetime(2026, 5, 1, 12, tzinfo=UTC))
    assert Started(hourly, noon).after(FIRST) == noon
    assert Started(hourly, noon + 1).after(FIRST) == noon + 3600 * SECOND
    assert Started(hourly, noon).after(noon) == noon + 3600 * SECOND


@given(st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1)))
def test_moments_and_times_are_the_same(at: datetime) -> None:
    assert as_datetime(moment(at.replace(tzinfo=UTC))) == at.replace(tzinfo=UTC)
