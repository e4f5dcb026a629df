"""What logon robots write, whatever the order of its lines."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soc.logons import messages
from soc.logons.messages import PHASES, Attempt, Outcome

SUCCESS = """Successful logon: to resource: Desktop - East  Brokered by device: XEN-07

Test Details:
----------------------
Latest Test Result: True
Storefront Connection Time: 00:00:02.4438449
Receiver Startup: 00:00:01.1000000
Connection Time: 00:00:00.4
Logon Time: 00:01:04.7571505
Logoff Time: 00:00:05.3776091"""

FAILURE = """Failed logon to resource: Desktop - East
Failure reason: The session ended before the desktop was there.
Failure details:  nothing came for 60 s
Device: XEN-08
Test Output:
----------------------
13:51:17 - Asking the store
13:51:19 - Logon Time is not known yet"""


def read(text: str) -> Attempt:
    return messages.read("", {"param1": text})


def test_a_success_tells_its_broker_and_how_long_each_phase_took() -> None:
    attempt = read(SUCCESS)
    assert (attempt.outcome, attempt.resource, attempt.broker) == (
        Outcome.SUCCEEDED, "Desktop - East", "XEN-07"
    )  # fmt: skip
    assert {name: span.total_seconds() for name, span in attempt.phases.items()} == {
        "store": 2.443844,
        "client": 1.1,
        "connection": 0.4,
        "logon": 64.75715,
        "logoff": 5.377609,
    }
    assert attempt.response == timedelta(seconds=68, microseconds=700994)


def test_a_failure_tells_its_reason_and_its_device() -> None:
    assert read(FAILURE) == Attempt(
        outcome=Outcome.FAILED,
        resource="Desktop - East",
        broker="XEN-08",
        reason="The session ended before the desktop was there.",
        phases={},
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_lines_makes_no_difference(seed: int) -> None:
    first, *rest = SUCCESS.splitlines()
    random.Random(seed).shuffle(rest)
    assert read("\r\n".join([first, *rest])) == read(SUCCESS)


def test_a_phase_that_is_missing_moves_no_other() -> None:
    attempt = read(SUCCESS.replace("Receiver Startup: 00:00:01.1000000\n", ""))
    assert attempt.phases == {n: s for n, s in read(SUCCESS).phases.items() if n != "client"}
    assert attempt.response is None


def test_values_of_their_own_names_are_read_too() -> None:
    values = {label: f"00:00:0{number}" for number, label in enumerate(PHASES.values(), 1)}
    attempt = messages.read("Successful logon: to resource: Desktop", values)
    assert [span.seconds for span in attempt.phases.values()] == [1, 2, 3, 4, 5]
    assert attempt.outcome == Outcome.SUCCEEDED


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Successful logon: to resource: D\nLatest Test Result: False", Outcome.FAILED),
        ("  failed LOGON to resource: D", Outcome.FAILED),
        ("Test will start again in: 180 seconds", Outcome.UNKNOWN),
        ("They say: Failed logon", Outcome.UNKNOWN),
        ("", Outcome.UNKNOWN),
    ],
)
def test_the_outcome_is_known_or_it_is_not(text: str, expected: Outcome) -> None:
    assert read(text).outcome == expected


@pytest.mark.parametrize(
    "time",
    [
        "",
        "soon",
        "1:2",
        "00:00:61",
        "00:75:00",
        "-00:00:01",
        "99:00:00",
        "\u0660\u0660:00:01",
        "0:0:1:2",
    ],
)
def test_what_is_no_time_is_not_measured(time: str) -> None:
    assert read(f"Logon Time: {time}").phases == {}


@given(st.text(st.sampled_from("LogonTime: 0123456789.,\n\rFailed"), max_size=80), st.text())
def test_no_text_breaks_the_reader(text: str, message: str) -> None:
    attempt = messages.read(message, {"param1": text, "Logon Time": text})
    assert all(timedelta() <= span <= timedelta(days=1) for span in attempt.phases.values())
    assert len(attempt.reason) <= 300
    assert "\n" not in attempt.resource + attempt.broker + attempt.reason


@given(st.timedeltas(min_value=timedelta(), max_value=timedelta(hours=23)))
def test_a_time_is_read_as_it_was_written(span: timedelta) -> None:
    seconds, rest = divmod(span, timedelta(seconds=1))
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    text = f"Logon Time: {clock}.{rest.microseconds:06}5"
    assert read(text).phases == {"logon": span}
