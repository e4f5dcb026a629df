"""Which host an event is of, in the documents of every Winlogbeat, forwarded or not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest

from soc.events import hosts, shapes
from soc.mail_collector import messages
from winlogbeat import body

CHECK = '{"type": "send", "status": "PASS", "mailbox": "a@north.test", "wm_id": "7"}'


class Shape(NamedTuple):
    """A document, and what is to be read out of it."""

    document: dict[str, Any]
    host: str
    record: int
    at: datetime


def of_6(computer: str, **more: Any) -> dict[str, Any]:
    """Winlogbeat 6 behind Logstash: flat, with the event's computer beside the beat's host."""
    return {
        "@timestamp": "2026-03-04T05:06:07.123Z",
        "@version": "1",
        "beat": {"hostname": "KEEPER", "name": "KEEPER", "version": "6.8.23"},
        "computer_name": computer,
        "event_data": {"Binary": "00", "param1": CHECK},
        "event_id": 1,
        "host": {"name": "KEEPER"},
        "level": "Information",
        "log_name": "Application",
        "message": "",
        "record_number": "31",
        "source_name": "SOC Mail Robot",
        "type": "wineventlog",
    } | more


def since_7(computer: str, **more: Any) -> dict[str, Any]:
    """Winlogbeat 7 and later: the Elastic Common Schema."""
    return {
        "@timestamp": "2026-03-04T05:06:07.1234567Z",
        "agent": {"hostname": "keeper", "name": "keeper", "type": "winlogbeat", "version": "7.4.1"},
        "ecs": {"version": "1.1.0"},
        "event": {"code": 1, "kind": "event", "provider": "SOC Mail Robot"},
        "host": {"name": "keeper", "hostname": "keeper", "ip": ["192.0.2.9"]},
        "log": {"level": "information"},
        "message": "",
        "winlog": {
            "channel": "Application",
            "computer_name": computer,
            "event_data": {"Binary": "00", "param1": CHECK},
            "event_id": 1,
            "provider_name": "SOC Mail Robot",
            "record_id": 32,
        },
    } | more


SECONDS_6 = datetime(2026, 3, 4, 5, 6, 7, 123000, tzinfo=UTC)
SECONDS_7 = datetime(2026, 3, 4, 5, 6, 7, 123456, tzinfo=UTC)
NAMED = {"name": "rack 4", "hostname": "keeper"}
AGENT_8 = {"name": "keeper.north.test", "type": "winlogbeat", "version": "8.17.0"}

SHAPES = {
    "6": Shape(of_6("KEEPER.north.test"), "keeper", 31, SECONDS_6),
    "6 forwarded": Shape(of_6("Robot7.north.test"), "robot7.north.test", 31, SECONDS_6),
    "6 with a name of its own": Shape(
        of_6("KEEPER", host={"name": "rack 4"}), "rack 4", 31, SECONDS_6
    ),
    "6 forwarded by one with a name of its own": Shape(
        of_6("robot7", host={"name": "rack 4"}), "robot7", 31, SECONDS_6
    ),
    "7": Shape(since_7("keeper.north.test"), "keeper", 32, SECONDS_7),
    "7 forwarded": Shape(since_7("robot7.north.test"), "robot7.north.test", 32, SECONDS_7),
    "7 with a name of its own": Shape(
        since_7("keeper.north.test", host=NAMED), "rack 4", 32, SECONDS_7
    ),
    "7.6 forwarded": Shape(
        since_7("robot7.north.test", host={"name": "robot7.north.test"}),
        "robot7.north.test",
        32,
        SECONDS_7,
    ),
    "8": Shape(
        since_7("KEEPER", host={"name": "keeper.north.test"}, agent=AGENT_8),
        "keeper.north.test",
        32,
        SECONDS_7,
    ),
    "8 forwarded": Shape(
        since_7("robot7.north.test", host={"name": "keeper.north.test"}, agent=AGENT_8),
        "robot7.north.test",
        32,
        SECONDS_7,
    ),
    "8 without a computer": Shape(since_7("", agent=AGENT_8), "keeper", 32, SECONDS_7),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_an_event_is_of_the_host_that_logged_it(shape: Shape) -> None:
    event = shapes.read(body(shape.document))
    assert event.host == shapes.host_of(body(shape.document)) == shape.host
    assert (event.provider, event.channel) == ("SOC Mail Robot", "Application")
    assert (event.record_id, event.event_id, event.at) == (shape.record, 1, shape.at)
    assert event.level.lower() == "information"
    assert messages.read(event.message, event.values).kind == messages.Kind.SEND


@pytest.mark.parametrize("name", ["ROBOT7", "robot7.north.test", "Robot7.North.test"])
def test_a_change_of_a_names_form_doubles_no_event(name: str) -> None:
    first = shapes.read(body(since_7("robot7", host={"name": "robot7"})))
    assert shapes.read(body(since_7(name, host={"name": name}))).digest == first.digest


@pytest.mark.parametrize(
    ("name", "computer", "expected"),
    [
        # NetBIOS keeps fifteen letters.
        ("SOC-ROBOT-NORTH", "soc-robot-north-1.north.test", "SOC-ROBOT-NORTH"),
        ("soc-robot-north-2", "soc-robot-north-1", "soc-robot-north-1"),
        ("soc-robot-nor", "soc-robot-north", "soc-robot-north"),
        ("192.0.2.1", "192.0.2.2", "192.0.2.2"),
        ("", "robot7", "robot7"),
    ],
)
def test_names_of_one_host_are_told_from_those_of_two(
    name: str, computer: str, expected: str
) -> None:
    assert hosts.origin(name, (), computer) == expected
