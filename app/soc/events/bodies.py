"""Takes a message's body apart into the JSON documents that it holds.

One document as UTF-8 is the rule. What else can be read without guessing is taken as well: a JSON
string that holds the document (some outputs of Logstash encode twice), gzip (RFC 1952), a JSON
list, a document a line (NDJSON), a string or binary value of AMQP 1.0, which RabbitMQ hands over as
it was encoded (OASIS AMQP 1.0, part 3, section 3.2), and logs of OpenTelemetry (OTLP/JSON).
"""

import json
import zlib
from collections.abc import Iterator, Mapping
from struct import unpack_from
from typing import Any, NamedTuple

import orjson

LONGEST_BODY = 1_000_000
"""Bytes, unpacked; an event of Windows itself has at most some 64 KB."""

MOST_DOCUMENTS = 2_000
"""Of one message; a list of that many events is longer than a body may be."""

_GZIP = b"\x1f\x8b"
"""How gzip begins (RFC 1952, section 2.3.1)."""

_UNPACK_GZIP = zlib.MAX_WBITS | 16

_AMQP = b"\x00\x53"
"""How a described section of AMQP 1.0 begins; 0x77 follows for a value, 0x75 for data."""

_LENGTHS = {0xA0: ">B", 0xA1: ">B", 0xB0: ">I", 0xB1: ">I"}
"""How the length of a binary or a string is written (AMQP 1.0, part 1, sections 1.6.19, 1.6.20)."""

_KINDS = {list: "a list", str: "a text", int: "a number", float: "a number", bool: "true or false"}


class Malformed(ValueError):
    """A message is no event that we know; the text says why, to a person."""


class Document(NamedTuple):
    """A JSON document, or why it cannot be read, and the text that it was read from."""

    text: str
    content: Any

    def fields(self) -> dict[str, Any]:
        """Return the fields of the document.

        Raises:
            Malformed: it is no object.
        """
        if isinstance(self.content, dict):
            return self.content
        if isinstance(self.content, Malformed):
            raise self.content
        raise Malformed(f"it is {_KINDS.get(type(self.content), 'null')}, not an object")


def documents(body: bytes | str) -> list[Document]:
    """Return the documents of a body, one at least.

    Raises:
        Malformed: there are none.
    """
    text = _decoded(body)
    try:
        content = _json(text)
    except Malformed:
        if (lines := _lines(text)) is None:
            raise
        return lines
    if isinstance(content, str):
        # Some outputs of Logstash encode twice.
        text, content = _clean(content), _json(content)
    if isinstance(content, list) and content:
        return _bounded([Document(json.dumps(one), one) for one in content[: MOST_DOCUMENTS + 1]])
    if isinstance(content, dict) and isinstance(content.get("resourceLogs"), list):
        return _bounded([Document(json.dumps(one), one) for one in _otlp(content)])
    return [Document(text, content)]


def _bounded(found: list[Document]) -> list[Document]:
    if not found:
        raise Malformed("it holds no event")
    if len(found) > MOST_DOCUMENTS:
        raise Malformed(f"it holds more than {MOST_DOCUMENTS:,} events: let the shipper send fewer")
    return found


def _decoded(body: bytes | str) -> str:
    if isinstance(body, bytes):
        _check_length(len(body))
        body = _unpacked(body)
        try:
            body = body.decode("utf-8")
        except UnicodeDecodeError as error:
            words = f"it is not UTF-8: byte {error.start + 1} is no part of a letter"
            raise Malformed(words) from None
    _check_length(len(body))
    return body.removeprefix("\ufeff")


def _check_length(length: int) -> None:
    if length > LONGEST_BODY:
        raise Malformed(f"it is too large: {length:,} bytes, at most {LONGEST_BODY:,} are read")


def _unpacked(body: bytes) -> bytes:
    if body.startswith(_AMQP):
        body = _amqp_value(body)
    if not body.startswith(_GZIP):
        return body
    try:
        unpacked = zlib.decompressobj(_UNPACK_GZIP).decompress(body, LONGEST_BODY + 1)
    except zlib.error as error:
        raise Malformed(f"it begins as gzip does, but cannot be unpacked: {error}") from None
    if len(unpacked) > LONGEST_BODY:
        raise Malformed(f"it is too large: unpacked, more than {LONGEST_BODY:,} bytes")
    return unpacked


def _amqp_value(body: bytes) -> bytes:
    """Return the text in a section of AMQP 1.0."""
    if len(body) > 3 and (how := _LENGTHS.get(body[3])):
        start = 4 + (1 if how == ">B" else 4)
        if len(body) >= start and len(body) == start + unpack_from(how, body, 4)[0]:
            return body[start:]
    raise Malformed(
        "it is a value of AMQP 1.0 that is no text: let the shipper send JSON as a data section"
    )


def _json(text: str) -> Any:
    if not text.strip():
        raise Malformed("it is empty")
    try:
        return orjson.loads(text)
    except ValueError:
        # It is strict: halves of surrogate pairs, for one, are letters to Winlogbeat.
        pass
    try:
        return json.loads(text)
    except ValueError as error:
        raise Malformed(f"it is not JSON: {error}") from None


def _lines(text: str) -> list[Document] | None:
    """Return the documents of a text that has one a line, if it has."""
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) < 2 or not all(line.startswith("{") for line in lines):
        return None
    return _bounded([Document(line, _attempt(line)) for line in lines[: MOST_DOCUMENTS + 1]])


def _attempt(line: str) -> Any:
    try:
        return _json(line)
    except Malformed as error:
        return error


def _clean(text: str) -> str:
    """Return a text that a database takes."""
    return text.replace("\0", "?").encode("utf-8", "replace").decode("utf-8")


# --- OpenTelemetry ------------------------------------------------------------------------------


def _otlp(content: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the body of each log record (OTLP/JSON, opentelemetry-proto ``logs.proto``)."""
    for resource in _objects(content.get("resourceLogs")):
        for scope in _objects(resource.get("scopeLogs")):
            for record in _objects(scope.get("logRecords")):
                yield _any_value(record.get("body"))


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    return (one for one in value if isinstance(one, dict)) if isinstance(value, list) else iter(())


def _any_value(value: Any) -> Any:
    """Return what an ``AnyValue`` holds; one of 64 bits is a text there (protobuf's JSON)."""
    if not isinstance(value, dict) or len(value) != 1:
        return None
    ((kind, held),) = value.items()
    inner = held.get("values") if isinstance(held, dict) else None
    match kind:
        case "kvlistValue":
            return {str(one.get("key")): _any_value(one.get("value")) for one in _objects(inner)}
        case "arrayValue":
            return [_any_value(one) for one in _objects(inner)]
    return held
