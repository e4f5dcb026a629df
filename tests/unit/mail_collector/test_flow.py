"""How the stream flows, from what was counted of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from soc.core.severity import Severity
from soc.events.flow import Flow, begin
from soc.events.silence import Limits

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
PATIENCE = timedelta(minutes=5)


def minutes(*numbers: int) -> list[datetime]:
    return [START + timedelta(minutes=number) for number in numbers]


@pytest.mark.parametrize(
    ("counted", "expected"),
    [
        ((), None),
        ((3,), 3),
        ((0, 1, 2, 3), 0),
        # What was counted in minute 0 may be of its end, and minute 6's of its beginning.
        ((0, 6), 0),
        ((0, 7), 7),
        ((0, 1, 20, 21, 22, 40, 41), 40),
    ],
)
def test_the_stream_flows_since_its_last_break(
    counted: tuple[int, ...], expected: int | None
) -> None:
    since = begin(minutes(*counted), PATIENCE)
    assert since == (None if expected is None else minutes(expected)[0])


@pytest.mark.parametrize(
    ("at", "since", "heard", "expected"),
    [
        # Minutes: the stream's time, since when it flows, when the robot was heard of.
        (60, 0, 60, 0),
        (60, 0, 20, 40),
        (60, 50, 20, 10),
        (60, 0, 70, 0),
        (60, 70, 20, 0),
    ],
)
def test_silence_counts_only_while_others_could_be_heard(
    at: int, since: int, heard: int, expected: int
) -> None:
    moments = minutes(at, since, heard)
    stream = Flow(START + timedelta(hours=9), moments[0], moments[1], PATIENCE)
    assert stream.silence(moments[2]) == timedelta(minutes=expected)


def test_of_a_stream_that_never_brought_anything_nothing_is_said() -> None:
    stream = Flow(START, None, None, PATIENCE)
    assert stream.is_silent
    assert stream.silence(START - timedelta(days=1)) == timedelta()


@pytest.mark.parametrize(
    ("hours", "expected"),
    [(1.99, Severity.OK), (2, Severity.WARNING), (5.99, Severity.WARNING), (6, Severity.CRITICAL)],
)
def test_a_silence_gets_worse_at_its_limits(hours: float, expected: Severity) -> None:
    limits = Limits(timedelta(hours=2), timedelta(hours=6))
    assert limits.severity(timedelta(hours=hours)) == expected


def test_without_a_second_limit_it_does_not_get_worse() -> None:
    assert Limits(timedelta(minutes=10)).severity(timedelta(days=9)) == Severity.WARNING
