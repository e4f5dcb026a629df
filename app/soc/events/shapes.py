"""Reads Windows events in the shapes that Winlogbeat gives them, whatever else comes.

Two generations: Winlogbeat 6 (its documentation, "Exported fields", 6.8: ``source_name``,
``record_number``, ``log_name``, ``event_data``) and the Elastic Common Schema since 7
(``winlog.provider_name``, ``winlog.record_id``, ``winlog.channel``, ``winlog.event_data``). A body
is a JSON object, or a JSON string that holds one.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import orjson

from soc.events import hosts

LONGEST_BODY = 1_000_000
"""Bytes; an event of Windows itself has at most some 64 KB."""

LONGEST_NAME = 255
"""Of a host, a provider or a channel."""

LONGEST_LEVEL = 20
LONGEST_ADDRESS = 64
MOST_ADDRESSES = 20
MOST_VALUES = 200
"""Of the values of one event; what is beyond stays in the raw event."""

LARGEST_RECORD = 2**63 - 1
LARGEST_EVENT = 2**32 - 1
"""Event ids have 16 bits, with qualifiers 32."""

EARLIEST = datetime(1990, 1, 1, tzinfo=UTC)
LATEST = datetime(2200, 1, 1, tzinfo=UTC)
"""Times beyond these are the work of a broken clock, and some databases cannot hold them."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_TIME = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:[.,]\d{1,30})?(?:[Zz]|[+-]\d\d:?\d\d)", re.ASCII
)
_ODD = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
"""What no database or page takes well: control characters, halves of surrogate pairs."""


class Malformed(ValueError):
    """A message is no event that we know; the text says why, to a person."""


class WindowsEvent(NamedTuple):
    """What all shapes have in common.

    ``host``, ``provider``, ``channel``, ``level`` and ``addresses`` are clean, single-line and of
    bounded length; ``message`` and ``values`` are texts without NUL and broken surrogates. ``at``
    is the robot's own claim, in UTC. ``digest`` is the same for every copy of an event.
    """

    host: str
    provider: str
    channel: str
    record_id: int
    event_id: int
    level: str
    at: datetime
    message: str
    values: Mapping[str, str]
    addresses: tuple[str, ...]
    digest: bytes
    raw: str


def read(body: bytes | str) -> WindowsEvent:
    """Read a message.

    Raises:
        Malformed: it is no event in any known shape.
    """
    try:
        return _read(body)
    except RecursionError:
        raise Malformed("it is nested too deeply") from None


def _read(body: bytes | str) -> WindowsEvent:
    raw, document = _document(body)
    if isinstance(winlog := document.get("winlog"), dict):
        return _event(raw, document, *_since_7(document, winlog))
    if "record_number" in document or "source_name" in document:
        return _event(raw, document, *_of_6(document))
    raise Malformed(
        "it is no Windows event: it has neither winlog.provider_name (Winlogbeat 7 and later) "
        "nor source_name (Winlogbeat 6)"
    )


def attempt(body: bytes | str) -> WindowsEvent | Malformed:
    """Read a message; return why it cannot be read if it is malformed."""
    try:
        return read(body)
    except Malformed as error:
        return error


def host_of(body: bytes | str) -> str:
    """Return the host that a message names, even if it is malformed otherwise, or nothing."""
    try:
        return _host(_document(body)[1])
    except (Malformed, RecursionError):
        return ""


# --- The document -------------------------------------------------------------------------------


def _document(body: bytes | str) -> tuple[str, dict[str, Any]]:
    """Return the text of the JSON object and the object."""
    if len(body) > LONGEST_BODY:
        raise Malformed(f"it is too large: {len(body):,} bytes, at most {LONGEST_BODY:,} are read")
    if isinstance(body, bytes) and body.startswith(_GZIP):
        raise Malformed("it is compressed with gzip: let the shipper send JSON uncompressed")
    try:
        text = body if isinstance(body, str) else body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(f"it is not UTF-8: byte {error.start + 1} is no part of a letter") from None
    text = text.removeprefix("\ufeff")
    value = _json(text)
    if isinstance(value, str):
        # Some outputs of Logstash encode twice.
        text, value = _text(value), _json(value)
    if not isinstance(value, dict):
        raise Malformed(f"it is {_KINDS.get(type(value), 'null')}, not an object")
    return text, value


_GZIP = b"\x1f\x8b"
"""How gzip begins (RFC 1952, section 2.3.1)."""

_KINDS = {list: "a list", str: "a text", int: "a number", float: "a number", bool: "true or false"}


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


# --- The two shapes -----------------------------------------------------------------------------

_Names = tuple[Any, Any, Any, Any, Any, Any]
"""Provider, channel, record id, event id, level and values, as they stand in a document."""


def _of_6(document: Mapping[str, Any]) -> _Names:
    return (
        *(document.get("source_name"), document.get("log_name"), document.get("record_number")),
        *(document.get("event_id"), document.get("level"), document.get("event_data")),
    )


def _since_7(document: Mapping[str, Any], winlog: Mapping[str, Any]) -> _Names:
    event_id = winlog.get("event_id")
    if event_id is None:
        event_id = _below(document, "event").get("code")
    level = _below(document, "log").get("level") or winlog.get("level")
    return (
        *(winlog.get("provider_name"), winlog.get("channel"), winlog.get("record_id")),
        *(event_id, level, winlog.get("event_data")),
    )


def _event(
    raw: str,
    document: Mapping[str, Any],
    provider: Any,
    channel: Any,
    record_id: Any,
    event_id: Any,
    level: Any,
    values: Any,
) -> WindowsEvent:
    host = _host(document)
    if not host:
        raise Malformed("it names no host: host.name is missing")
    provider = _name(provider, "provider")
    channel = _name(channel, "channel")
    record_id = _number(record_id, "record number", LARGEST_RECORD)
    at = _time(document.get("@timestamp"))
    return WindowsEvent(
        host=host,
        provider=provider,
        channel=channel,
        record_id=record_id,
        event_id=_number(event_id, "event id", LARGEST_EVENT),
        level=_line(level, LONGEST_LEVEL),
        at=at,
        message=_text(document.get("message")),
        values=_values(values),
        addresses=_addresses(document, host),
        digest=_digest(host, channel, record_id, at, provider),
        raw=raw,
    )


def _digest(host: str, channel: str, record_id: int, at: datetime, provider: str) -> bytes:
    microseconds = (at - _EPOCH) // _MICROSECOND
    # Names of Windows know no case, and the two generations write them differently.
    # A host's name becomes fully qualified, or short again, when its Winlogbeat is upgraded.
    key = (
        f"{hosts.netbios(host)}\0{channel.lower()}\0{record_id}\0{microseconds}\0{provider.lower()}"
    )
    return hashlib.blake2b(key.encode(), digest_size=16).digest()


# --- The parts ----------------------------------------------------------------------------------


def _below(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def _host(document: Mapping[str, Any]) -> str:
    """Return the host that logged the event, which need not be the one that shipped it."""
    host, winlog = document.get("host"), _below(document, "winlog")
    name = host.get("name") if isinstance(host, dict) else host
    others = (_below(document, part).get("hostname") for part in ("agent", "beat", "host"))
    computer = winlog.get("computer_name") or document.get("computer_name")
    return hosts.origin(_host_name(name), map(_host_name, others), _host_name(computer))


def _host_name(value: Any) -> str:
    return _line(value, LONGEST_NAME).lower()


def _addresses(document: Mapping[str, Any], host: str) -> tuple[str, ...]:
    """Return the host's addresses; those of a collector say nothing of whom it forwards."""
    shipper = _below(document, "host")
    given = shipper.get("ip") if _host_name(shipper.get("name")) == host else None
    listed = given if isinstance(given, list) else [given]
    lines = (_line(address, LONGEST_ADDRESS) for address in listed[:MOST_ADDRESSES])
    return tuple(line for line in lines if line)


def _name(value: Any, what: str) -> str:
    if name := _line(value, LONGEST_NAME):
        return name
    raise Malformed(f"it names no {what}")


def _line(value: Any, longest: int) -> str:
    """Return a text as one clean line of bounded length; nothing if it is none."""
    if not isinstance(value, str):
        return ""
    if len(value) <= longest and value.isprintable():
        return value.strip()
    return _ODD.sub(" ", value[: longest * 2]).strip()[:longest].rstrip()


def _number(value: Any, what: str, largest: int) -> int:
    """Return a number that is written as one or as a text."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,20}", value, re.ASCII):
        value = int(value)
    if type(value) is not int or not 0 <= value <= largest:
        shown = "missing" if value is None else f"{str(value)[:40]!r}"
        raise Malformed(f"its {what} is {shown}, not a number from 0 to {largest:,}")
    return value


def _time(value: Any) -> datetime:
    """Return the time; digits beyond microseconds are cut off, as Windows has seven."""
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        shown = "missing" if value is None else f"{str(value)[:40]!r}"
        raise Malformed(f"its @timestamp is {shown}, not a time with its zone")
    try:
        at = datetime.fromisoformat(value.upper().replace(",", "."))
        if at.tzinfo is not UTC:
            at = at.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Malformed(f"its @timestamp {value[:40]!r} is no time: {error}") from None
    if not EARLIEST <= at <= LATEST:
        raise Malformed(f"its @timestamp {value[:40]!r} is out of all reason")
    return at


def _text(value: Any) -> str:
    """Return a text that a database takes."""
    return _without_surrogates(value) if isinstance(value, str) else ""


def _without_surrogates(text: str) -> str:
    """Return a text with a question mark for each NUL and each half of a surrogate pair."""
    if "\0" not in text and text.isprintable():
        return text
    return text.replace("\0", "?").encode("utf-8", "replace").decode("utf-8")


def _values(given: Any) -> Mapping[str, str]:
    """Return the values of an event by name; a list's are called param1, param2 and so on."""
    if isinstance(given, list):
        given = {f"param{number}": value for number, value in enumerate(given[:MOST_VALUES], 1)}
    if not isinstance(given, dict):
        return {}
    return {
        _text(name): _text(value) if isinstance(value, str) else json.dumps(value)
        for name, value in list(given.items())[:MOST_VALUES]
    }
