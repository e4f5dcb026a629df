"""Winlogbeat's documents are read in both shapes; nothing else gets past, nothing crashes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soc.events import shapes
from winlogbeat import CHANNEL, PROVIDER, body, of_6, of_8

AT = "2026-03-04T05:06:07.123Z"


def test_both_generations_tell_the_same() -> None:
    old = shapes.read(body(of_6(**{"@timestamp": AT})))
    new = shapes.read(body(of_8(**{"@timestamp": AT})))
    assert (old.host, old.provider, old.channel) == ("robot-01", PROVIDER, CHANNEL)
    assert (old.record_id, old.event_id, old.message) == (4711, 1000, "Something happened")
    assert old.at == datetime(2026, 3, 4, 5, 6, 7, 123000, tzinfo=UTC)
    assert old.values == {"param1": "a value"}
    assert (old.level, new.level) == ("Information", "information")
    assert new.addresses == ("192.0.2.1",)
    assert old[:5] == new[:5]
    # A robot that is upgraded and ships its log again is not doubled.
    assert old.digest == new.digest


def test_a_json_string_that_holds_the_object_is_read() -> None:
    text = json.dumps(of_8(**{"@timestamp": AT}))
    twice = shapes.read(json.dumps(text).encode())
    assert twice == shapes.read(text.encode())
    assert twice.raw == text


def test_the_raw_event_is_kept_as_it_came() -> None:
    raw = json.dumps(of_6(), indent=3)
    assert shapes.read(raw.encode()).raw == raw


def test_a_text_is_read_as_bytes_are() -> None:
    """The client decodes a body whose publisher names an encoding."""
    text = json.dumps(of_6())
    assert shapes.read(text) == shapes.read(text.encode())


def test_the_event_id_stands_in_either_place() -> None:
    document = of_8()
    del document["winlog"]["event_id"]
    assert shapes.read(body(document)).event_id == 1000


def test_a_list_of_values_is_numbered() -> None:
    event = shapes.read(body(of_8({"event_data": ["one", 2, None]})))
    assert event.values == {"param1": "one", "param2": "2", "param3": "null"}


@pytest.mark.parametrize(
    ("text", "microsecond"),
    [
        ("2026-03-04T05:06:07Z", 0),
        ("2026-03-04T05:06:07.1Z", 100000),
        ("2026-03-04T05:06:07.1234567Z", 123456),
        ("2026-03-04T05:06:07.123456789Z", 123456),
        ("2026-03-04T06:06:07.5+01:00", 500000),
        ("2026-03-04T05:06:07,5z", 500000),
    ],
)
def test_times_are_read_with_any_number_of_digits(text: str, microsecond: int) -> None:
    at = shapes.read(body(of_6(**{"@timestamp": text}))).at
    assert at == datetime(2026, 3, 4, 5, 6, 7, microsecond, tzinfo=UTC)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"", "it is empty"),
        (b"{", "it is not JSON"),
        (b'"{"', "it is not JSON"),
        (b"[]", "it is a list"),
        (b"[[]]", "it is a list"),
        (b"[{},{}]", "it holds 2 events"),
        (b"17", "it is a number"),
        (b"null", "it is null"),
        (b"true", "it is true or false"),
        (b'"\\"{}\\""', "it is a text"),
        (b"\xff\xfe{}", "it is not UTF-8: byte 1"),
        (b"{}", "neither winlog .Winlogbeat 7 and later. nor"),
        (b"[" * 200_000, "it is nested too deeply"),
        (b"9" * 5000, "it is not JSON"),
        (b" " * 1_000_001, "it is too large: 1,000,001 bytes"),
        (b'{"a": "\x00"}', "it is not JSON"),
    ],
)
def test_what_is_no_document_is_refused_with_a_reason(message: bytes, words: str) -> None:
    with pytest.raises(shapes.Malformed, match=words):
        shapes.read(message)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"host": None, "computer_name": None}, "it names no host: computer_name is missing"),
        ({"host": {"name": " \u0000\n "}, "computer_name": ""}, "it names no host"),
        ({"host": [], "computer_name": 7}, "it names no host"),
        ({"source_name": ""}, "it names no provider"),
        ({"source_name": 7}, "it names no provider"),
        ({"log_name": None}, "it names no channel"),
        ({"record_number": None}, "its record number is missing"),
        ({"record_number": "-1"}, "its record number is '-1'"),
        ({"record_number": 2**63}, "its record number is '9223372036854775808'"),
        ({"record_number": True}, "its record number is 'True'"),
        ({"record_number": 1.5}, "its record number is '1.5'"),
        ({"record_number": "٣"}, "its record number is '٣'"),
        ({"event_id": "x"}, "its event id is 'x'"),
        ({"event_id": 2**32}, "its event id is '4294967296'"),
        ({"@timestamp": None}, "its @timestamp is missing"),
        ({"@timestamp": 1741064767}, "its @timestamp is '1741064767'"),
        ({"@timestamp": "2026-03-04T05:06:07"}, "not a time with its zone"),
        ({"@timestamp": "2026-02-30T05:06:07Z"}, "is no time"),
        ({"@timestamp": "2026-03-04T05:06:07+24:00"}, "is no time"),
        ({"@timestamp": "0001-01-01T00:00:00+14:00"}, "is no time"),
        ({"@timestamp": "9999-12-31T23:59:59-14:00"}, "is no time"),
        ({"@timestamp": "0002-01-01T00:00:00Z"}, "out of all reason"),
        ({"@timestamp": "2999-01-01T00:00:00Z"}, "out of all reason"),
        ({"@timestamp": "٢٠٢٦-03-04T05:06:07Z"}, "not a time with its zone"),
    ],
)
def test_a_document_without_what_it_needs_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(shapes.Malformed, match=words):
        shapes.read(body(of_6(**changes)))


def test_what_databases_take_badly_is_replaced() -> None:
    event = shapes.read(
        body(
            of_6(
                host={"name": " ROBOT\x0001\n", "ip": ["192.0.2.1\n", 5, "x" * 500]},
                message="one\x00two \ud800 three\nfour",
                level="a" * 100,
                event_data={"a\x00": "\udfff", "deep": {"b": [1]}},
            )
        )
    )
    assert event.host == "robot 01"
    assert event.addresses == ("192.0.2.1", "x" * 64)
    assert event.message == "one?two ? three\nfour"
    assert event.level == "a" * 20
    assert event.values == {"a?": "?", "deep": '{"b": [1]}'}
    event.raw.encode()


def test_the_key_tells_events_apart() -> None:
    base = {"@timestamp": AT}
    different = [
        of_6(**base),
        of_6(**base, record_number="4712"),
        of_6(**base, log_name="System"),
        of_6(**base, source_name="Another"),
        of_6(**base, host={"name": "ROBOT-02"}),
        of_6(**{"@timestamp": "2026-03-04T05:06:07.124Z"}),
    ]
    assert len({shapes.read(body(document)).digest for document in different}) == len(different)
    same = of_6(**base, host={"name": "Robot-01"}, log_name="application", message="other words")
    assert shapes.read(body(same)).digest == shapes.read(body(different[0])).digest


def test_the_host_of_a_malformed_document_is_told_if_it_has_one() -> None:
    assert shapes.host_of(body(of_6(event_id=None))) == "robot-01"
    assert shapes.host_of(b"{") == ""
    assert shapes.host_of(b"[" * 200_000) == ""


# --- Anything at all ----------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
NAMES = sorted({*of_6(), *of_8(), "winlog"})
DOCUMENTS = st.builds(
    lambda base, changes, removed: {k: v for k, v in (base | changes).items() if k not in removed},
    st.sampled_from([of_6(), of_8()]),
    st.dictionaries(st.sampled_from(NAMES), JSON, max_size=4),
    st.sets(st.sampled_from(NAMES), max_size=2),
)
BODIES = (
    st.binary(max_size=300)
    | JSON.map(lambda value: json.dumps(value).encode())
    | DOCUMENTS.map(lambda value: json.dumps(value).encode())
    | DOCUMENTS.map(lambda value: json.dumps(json.dumps(value)).encode())
)


@settings(max_examples=200, deadline=None)
@given(BODIES)
def test_whatever_comes_is_an_event_within_bounds_or_is_refused(message: bytes) -> None:
    try:
        event = shapes.read(message)
    except shapes.Malformed:
        return
    assert 0 < len(event.host) <= shapes.LONGEST_NAME
    assert 0 < len(event.provider) <= shapes.LONGEST_NAME
    assert 0 < len(event.channel) <= shapes.LONGEST_NAME
    assert len(event.level) <= shapes.LONGEST_LEVEL
    assert 0 <= event.record_id <= shapes.LARGEST_RECORD
    assert 0 <= event.event_id <= shapes.LARGEST_EVENT
    assert shapes.EARLIEST <= event.at <= shapes.LATEST
    assert len(event.digest) == 16
    texts = (event.host, event.message, event.raw, *event.values, *event.values.values())
    for text in texts:
        assert "\0" not in text
        text.encode()
