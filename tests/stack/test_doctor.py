"""Doctor names each of the things that are broken here in its first three lines, in 15 s."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from faults import FAULTS, Fault

from harness import Stack, wait_for

FIRST = 3
WITHIN = 15.0
# The host's own and what a site without history has.
ALWAYS = ("clock is not synchronized", "holds no backup", "host is overloaded")

# A machine that is busy with other tests answers too late, which doctor then says.
pytestmark = pytest.mark.drill


def doctor(stack: Stack) -> dict[str, Any]:
    """Run `make doctor` for a monitor; return what it says, without what every site here has."""
    lines = stack.make("doctor", "JSON=1", check=False).splitlines()
    answers = [line for line in lines if line.startswith("{")]
    assert answers, lines
    said = json.loads(answers[0])
    findings = [one for one in said["findings"] if not any(text in one["text"] for text in ALWAYS)]
    return said | {"findings": findings}


def critical(stack: Stack) -> list[str]:
    return [one["text"] for one in doctor(stack)["findings"] if one["level"] == "critical"]


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    """The lines of a table that is printed in the end."""
    lines = ["| broken | doctor's line | place | s |", "|---|---|---|---|"]
    yield lines
    print("\n" + "\n".join(lines))


def test_a_site_that_is_well_has_nothing_to_say(stack: Stack) -> None:
    wait_for("a first round", lambda: doctor(stack)["findings"] == [])
    shown = stack.make("doctor", check=False)
    assert "-> " in shown
    assert "findings in" in shown


@pytest.mark.parametrize(
    "fault",
    [pytest.param(fault, id=fault.name) for fault in FAULTS],
)
def test_what_is_broken_is_named(stack: Stack, fault: Fault, table: list[str]) -> None:
    wait_for("a site that is well", lambda: critical(stack) == [], seconds=120)
    with fault.broken(stack):
        said = doctor(stack)
    named = [fault.expected in one["text"] for one in said["findings"]]
    assert any(named[:FIRST]), said["findings"]
    place = named.index(True)
    text = said["findings"][place]["text"]
    table.append(f"| {fault.name} | {text} | {place + 1} | {said['seconds']} |")
    assert said["findings"][place]["todo"]
    assert said["seconds"] < WITHIN
