"""Documents of every shipper that is known: host, provider, log, record, event, time, values."""

from __future__ import annotations

import gzip
import json
import struct
from datetime import UTC, datetime
from typing import Any

import pytest

from soc.events import shapes
from soc.events.bodies import MOST_DOCUMENTS, Malformed
from winlogbeat import body, of_6, of_8

VALUES = {"param1": "a value", "param2": "another"}
AT = datetime(2026, 3, 4, 5, 6, 7, 123000, tzinfo=UTC)
SECOND = AT.replace(microsecond=0)
STAMP = "2026-03-04T05:06:07.123Z"

WINLOG = {
    "computer_name": "robot-01.example.org",
    "provider_name": "Test Robot",
    "channel": "Application",
    "record_id": 4711,
    "event_id": "1000",
    "event_data": VALUES,
}
WINLOGBEAT_6 = of_6(**{"@timestamp": STAMP, "event_data": VALUES})
WINLOGBEAT_7 = of_8(
    {**WINLOG, "event_id": 1000},
    **{"@timestamp": STAMP, "agent": {"hostname": "ROBOT-01", "type": "winlogbeat"}},
)
WINLOGBEAT_8 = of_8(WINLOG, **{"@timestamp": STAMP, "host": {"name": "robot-01.example.org"}})
WINLOGBEAT_9 = WINLOGBEAT_8 | {"agent": {"type": "winlogbeat", "version": "9.1.0"}}
NXLOG = {
    "EventTime": "2026-03-04T07:06:07.123000+02:00",
    "Hostname": "robot-01.example.org",
    "Keywords": "36028797018963968",
    "EventType": "INFO",
    "SeverityValue": 2,
    "Severity": "INFO",
    "EventID": 1000,
    "SourceName": "Test Robot",
    "RecordNumber": 4711,
    "Channel": "Application",
    "Message": "Something happened",
    "EventReceivedTime": "2026-03-04T07:06:08.000000+02:00",
    "SourceModuleName": "eventlog",
    "SourceModuleType": "im_msvistalog",
    **VALUES,
}
FLUENT_BIT = {
    "date": 1772600768.5,
    "ProviderName": "Test Robot",
    "ProviderGuid": "",
    "Qualifiers": 0,
    "EventID": 1000,
    "Version": 0,
    "Level": 4,
    "Keywords": "0x80000000000000",
    "TimeCreated": "2026-03-04 14:06:07 +0900",
    "EventRecordID": 4711,
    "Channel": "Application",
    "Computer": "robot-01.example.org",
    "Message": "Something happened",
    "StringInserts": ["a value", "another"],
}
WIN = {
    "system": {
        "providerName": "Test Robot",
        "eventID": "1000",
        "level": "4",
        "systemTime": "2026-03-04T05:06:07.1230000Z",
        "eventRecordID": "4711",
        "channel": "Application",
        "computer": "robot-01.example.org",
        "severityValue": "INFORMATION",
        "message": '"Something happened"',
    },
    "eventdata": VALUES,
}
WAZUH = {
    "timestamp": "2026-03-04T05:06:09.000+0000",
    "agent": {"id": "001", "name": "robot", "ip": "192.0.2.1"},
    "manager": {"name": "manager"},
    "decoder": {"name": "windows_eventchannel"},
    "data": {"win": WIN},
    "location": "EventChannel",
}
OPENTELEMETRY = {
    "event_id": {"id": 1000, "qualifiers": 0},
    "provider": {"name": "Test Robot", "guid": "", "event_source": ""},
    "system_time": "2026-03-04T05:06:07.1230000Z",
    "computer": "robot-01.example.org",
    "channel": "Application",
    "record_id": 4711,
    "level": "Information",
    "message": "Something happened",
    "event_data": VALUES,
}


def otlp(*records: dict[str, Any]) -> dict[str, Any]:
    """Logs as OTLP/JSON has them."""

    def value(held: Any) -> dict[str, Any]:
        if isinstance(held, dict):
            pairs = [{"key": key, "value": value(inner)} for key, inner in held.items()]
            return {"kvlistValue": {"values": pairs}}
        if isinstance(held, list):
            return {"arrayValue": {"values": [value(inner) for inner in held]}}
        return {"intValue": str(held)} if isinstance(held, int) else {"stringValue": held}

    logs = [{"timeUnixNano": "1", "body": value(record)} for record in records]
    return {"resourceLogs": [{"resource": {}, "scopeLogs": [{"scope": {}, "logRecords": logs}]}]}


def dotted(fields: dict[str, Any], above: str = "") -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, held in fields.items():
        inner = dotted(held, f"{above}{name}.") if isinstance(held, dict) else None
        made |= inner if inner is not None else {above + name: held}
    return made


ONE_EACH = {"data": [{"param1": "a value"}, {"": "another"}]}


@pytest.mark.parametrize(
    ("document", "level", "at"),
    [
        pytest.param(WINLOGBEAT_6, "Information", AT, id="Winlogbeat 6"),
        pytest.param(WINLOGBEAT_7, "information", AT, id="Winlogbeat 7"),
        pytest.param(WINLOGBEAT_8, "information", AT, id="Winlogbeat 8"),
        pytest.param(WINLOGBEAT_9, "information", AT, id="Winlogbeat 9"),
        pytest.param(NXLOG, "INFO", AT, id="NXLog"),
        pytest.param(FLUENT_BIT, "Information", SECOND, id="Fluent Bit"),
        pytest.param(WAZUH, "INFORMATION", AT, id="Wazuh archives"),
        pytest.param({"win": WIN}, "INFORMATION", AT, id="Wazuh event"),
        pytest.param(OPENTELEMETRY, "Information", AT, id="OpenTelemetry body"),
        pytest.param(
            OPENTELEMETRY | {"event_data": ONE_EACH}, "Information", AT, id="OpenTelemetry, newer"
        ),
        pytest.param({"body": OPENTELEMETRY}, "Information", AT, id="OpenTelemetry, encoded"),
        pytest.param(otlp(OPENTELEMETRY), "Information", AT, id="OpenTelemetry, OTLP"),
        pytest.param(dotted(WINLOGBEAT_8), "information", AT, id="Winlogbeat 8, dotted"),
        pytest.param(dotted(OPENTELEMETRY), "Information", AT, id="OpenTelemetry, dotted"),
        pytest.param(
            WINLOGBEAT_8 | {"host": {"hostname": "ROBOT-01"}}, "information", AT, id="host.hostname"
        ),
        pytest.param(WINLOGBEAT_8 | {"host": None}, "information", AT, id="no host"),
    ],
)
def test_every_shipper_tells_the_same(document: dict[str, Any], level: str, at: datetime) -> None:
    event = shapes.read(body(document))
    assert event.host in ("robot-01", "robot-01.example.org")
    assert (event.provider, event.channel) == ("Test Robot", "Application")
    assert (event.record_id, event.event_id, event.at) == (4711, 1000, at)
    assert event.level == level
    assert event.message.strip('"') == "Something happened"
    assert VALUES.items() <= event.values.items()
    if at == AT:
        # Another shipper for the same robot doubles nothing.
        assert event.digest == shapes.read(body(WINLOGBEAT_6)).digest


def value_of_amqp(kind: int, text: bytes) -> bytes:
    """A body as RabbitMQ hands over the value section of an AMQP 1.0 message."""
    length = struct.pack(">B" if kind < 0xB0 else ">I", len(text))
    return b"\x00\x53\x77" + bytes([kind]) + length + text


SHORT = b'{"record_number": 1}'


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(gzip.compress(body(WINLOGBEAT_8)), id="gzip"),
        pytest.param(b"[" + body(WINLOGBEAT_8) + b"]", id="a list of one"),
        pytest.param(value_of_amqp(0xB1, body(WINLOGBEAT_8)), id="AMQP 1.0 string"),
        pytest.param(value_of_amqp(0xB0, body(WINLOGBEAT_8)), id="AMQP 1.0 binary"),
        pytest.param(value_of_amqp(0xB1, gzip.compress(body(WINLOGBEAT_8))), id="and gzip"),
    ],
)
def test_what_can_be_taken_without_guessing_is_taken(message: bytes) -> None:
    assert shapes.read(message).digest == shapes.read(body(WINLOGBEAT_6)).digest


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(json.dumps([WINLOGBEAT_6, NXLOG, {"n": 1}]).encode(), id="list"),
        pytest.param(b"\n".join(map(body, (WINLOGBEAT_6, NXLOG, {"n": 1}))) + b"\n", id="lines"),
        pytest.param(body(WINLOGBEAT_6) + b"\r\n" + body(NXLOG) + b'\n{"n": \n', id="a cut line"),
        pytest.param(body(otlp(OPENTELEMETRY, OPENTELEMETRY, {"n": 1})), id="OTLP"),
    ],
)
def test_each_event_of_a_message_stands_for_itself(message: bytes) -> None:
    first, second, third = shapes.read_all(message)
    assert isinstance(first.event, shapes.WindowsEvent)
    assert isinstance(second.event, shapes.WindowsEvent)
    assert isinstance(third.event, Malformed)
    assert str(third.body).startswith('{"n":')
    assert shapes.read(str(first.body)) == first.event


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (value_of_amqp(0xA1, b"{"), "it is not JSON"),
        (value_of_amqp(0xA1, SHORT), "it names no host"),
        (b"\x00\x53\x77\xc1\x05", "AMQP 1.0 that is no text: let the shipper send JSON as a data"),
        (b"\x00\x53\x77\xa1\x05ab", "AMQP 1.0 that is no text"),
        (b"\x00\x53\x77\xb1", "AMQP 1.0 that is no text"),
        (b"\x1f\x8b\x08cut", "begins as gzip does, but cannot be unpacked"),
        (gzip.compress(b" " * 2_000_000), "it is too large: unpacked, more than 1,000,000 bytes"),
        (b"[" + b"1," * MOST_DOCUMENTS + b"1]", "more than 2,000 events: let the shipper send"),
        (body(otlp()), "it holds no event"),
        (body(NXLOG | {"EventTime": "2026-03-04 07:06:07"}), "its EventTime is .* in xm_json"),
        (body(FLUENT_BIT | {"Channel": ""}), "it names no channel: Channel is missing"),
        (body({"System": "<System/>", "Message": ""}), "a mapping in the admin can name"),
        (b'{\n  "cut": 1,\n', "it is not JSON"),
    ],
)
def test_what_cannot_be_read_says_what_to_change(message: bytes, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        shapes.read(message)
