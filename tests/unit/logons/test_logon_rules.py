"""What a number of logons amounts to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soc.logons import rules
from soc.logons.rules import Logon

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
FIVE, TEN = timedelta(minutes=5), timedelta(minutes=10)
IDS = frozenset({1006, 1007, 1016, 1017})


def logon(
    minute: float, state: str = "failed", event_id: int = 1006, response: int | None = None
) -> Logon:
    return Logon(1, START + timedelta(minutes=minute), state, event_id, response)


def test_only_failures_of_the_time_count() -> None:
    told = [logon(0), logon(0.1), logon(5, "succeeded"), logon(6, "unknown"), logon(10), logon(11)]
    until = START + TEN
    assert rules.failures(told, until, TEN) == [logon(0.1), logon(10)]


def test_the_mean_response_is_of_what_was_measured() -> None:
    told = [
        logon(0, "succeeded", response=90_000),
        logon(5, "succeeded", response=10_000),
        logon(6, "failed"),
        logon(7, "succeeded", response=13_000),
    ]
    mean = rules.mean_response(told, START + TEN, TEN)
    assert mean == timedelta(seconds=11.5)
    assert rules.mean_response(told[2:3], START + TEN, TEN) is None


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [
        ((0, 1, 2, 3, 4), 5),
        ((0, 1, 2, 3, 4.99), 5),
        ((0, 1, 2, 3, 5), 0),
        ((0, 1, 2, 3), 0),
        ((0, 0, 0, 0, 0), 5),
        # Six, of which the first and the last are too far apart: two clusters that overlap.
        ((0, 1, 2, 3, 4, 5.5), 6),
        ((0, 10, 11, 12, 13, 14, 30), 5),
    ],
)
def test_five_failures_in_five_minutes_are_a_cluster(
    minutes: tuple[float, ...], expected: int
) -> None:
    told = [logon(minute) for minute in minutes]
    assert len(rules.clustered(told, IDS, 5, FIVE)) == expected
    assert len(rules.clustered(reversed(told), IDS, 5, FIVE)) == expected


def test_failures_with_other_event_ids_and_successes_make_no_cluster() -> None:
    told = [logon(0, event_id=1004), logon(1, "succeeded"), *(logon(n) for n in range(4))]
    assert rules.clustered(told, IDS, 5, FIVE) == []


@given(st.lists(st.floats(0, 60), max_size=25))
def test_a_failure_is_clustered_if_and_only_if_enough_others_are_near(minutes: list[float]) -> None:
    told = [logon(minute) for minute in minutes]
    found = rules.clustered(told, IDS, 5, FIVE)
    times = sorted(one.at for one in told)
    spans = [
        (first, last) for first, last in zip(times, times[4:], strict=False) if last - first < FIVE
    ]
    expected = [at for at in times if any(first <= at <= last for first, last in spans)]
    assert [one.at for one in found] == expected
