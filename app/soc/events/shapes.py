"""Reads Windows events in the shapes that shippers give them, whatever else comes.

``SHAPES`` says where each puts the parts of an event; a site may add its own (soc.events.mappings).
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, NamedTuple

from soc.events import bodies, hosts
from soc.events.bodies import Document, Malformed

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

_SECONDS = len("2026-01-01T00:00:00")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_TIME = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:[.,]\d{1,30})?(?:[Zz]| ?[+-]\d\d:?\d\d)", re.ASCII
)
_ODD = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
"""What no database or page takes well: control characters, halves of surrogate pairs."""


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


class UnknownShape(Malformed):
    """A document has none of the shapes that were tried."""


class Part(NamedTuple):
    """A part of a message that is an event of its own, or should be."""

    body: bytes | str
    event: WindowsEvent | Malformed

    @property
    def size(self) -> int:
        """What it is to hold and to write: the event, unpacked, or what could not be read."""
        return len(self.body if isinstance(self.event, Malformed) else self.event.raw)


Path = tuple[str, ...]


def paths(*names: str) -> tuple[Path, ...]:
    """Return places in a document that are written with dots."""
    return tuple(tuple(name.split(".")) for name in names)


@dataclass(frozen=True)
class Shape:
    """Where a shipper puts the parts of an event: of several places the first that has it counts.

    A document has the shape if it has anything at one of the ``marks``. ``values`` may be the whole
    document, for shippers that put an event's values next to its parts.
    """

    name: str
    marks: Sequence[Path]
    computer: Sequence[Path]
    provider: Sequence[Path]
    channel: Sequence[Path]
    record_id: Sequence[Path]
    event_id: Sequence[Path]
    level: Sequence[Path]
    at: Sequence[Path]
    message: Sequence[Path]
    values: Sequence[Path]
    hint: str = ""
    """What to change at the shipper if a time lacks its zone."""


SHAPES = (
    # Winlogbeat 7, 8 and 9: its documentation, "Exported fields", and the Elastic Common Schema.
    Shape(
        name="Winlogbeat 7 and later",
        marks=paths("winlog"),
        computer=paths("winlog.computer_name"),
        provider=paths("winlog.provider_name"),
        channel=paths("winlog.channel"),
        record_id=paths("winlog.record_id"),
        event_id=paths("winlog.event_id", "event.code"),
        level=paths("log.level", "winlog.level"),
        at=paths("@timestamp"),
        message=paths("message"),
        values=paths("winlog.event_data"),
    ),
    # Winlogbeat 6: its documentation, "Exported fields", 6.8.
    Shape(
        name="Winlogbeat 6",
        marks=paths("source_name", "record_number"),
        computer=paths("computer_name"),
        provider=paths("source_name"),
        channel=paths("log_name"),
        record_id=paths("record_number"),
        event_id=paths("event_id"),
        level=paths("level"),
        at=paths("@timestamp"),
        message=paths("message"),
        values=paths("event_data"),
    ),
    # NXLog, im_msvistalog with to_json(): its documentation, "Fields" of im_msvistalog.
    Shape(
        name="NXLog",
        marks=paths("RecordNumber"),
        computer=paths("Hostname"),
        provider=paths("SourceName"),
        channel=paths("Channel"),
        record_id=paths("RecordNumber"),
        event_id=paths("EventID"),
        level=paths("Severity", "EventType"),
        at=paths("EventTime"),
        message=paths("Message"),
        values=((),),
        hint="let NXLog write it with one: DateFormat YYYY-MM-DDThh:mm:ss.sUTC in xm_json",
    ),
    # Fluent Bit, in_winevtlog: its documentation, and ``winevtlog_pack_event``.
    Shape(
        name="Fluent Bit winevtlog",
        marks=paths("EventRecordID"),
        computer=paths("Computer"),
        provider=paths("ProviderName"),
        channel=paths("Channel"),
        record_id=paths("EventRecordID"),
        event_id=paths("EventID"),
        level=paths("Level"),
        at=paths("TimeCreated"),
        message=paths("Message"),
        values=paths("StringInserts"),
    ),
    # Wazuh, eventchannel, in archives.json and alerts.json: its documentation, "Windows logs".
    Shape(
        name="Wazuh eventchannel",
        marks=paths("data.win.system", "win.system"),
        computer=paths("data.win.system.computer", "win.system.computer"),
        provider=paths("data.win.system.providerName", "win.system.providerName"),
        channel=paths("data.win.system.channel", "win.system.channel"),
        record_id=paths("data.win.system.eventRecordID", "win.system.eventRecordID"),
        event_id=paths("data.win.system.eventID", "win.system.eventID"),
        level=paths("data.win.system.severityValue", "win.system.severityValue"),
        at=paths("data.win.system.systemTime", "win.system.systemTime"),
        message=paths("data.win.system.message", "win.system.message"),
        values=paths("data.win.eventdata", "win.eventdata"),
    ),
    # OpenTelemetry Collector, windowseventlogreceiver (``EventXML.parseBody``): the bare body, or
    # below ``body`` as the JSON log encoding has it; OTLP/JSON comes here as bare bodies.
    Shape(
        name="OpenTelemetry windowseventlog",
        marks=paths("event_id.id", "body.event_id.id"),
        computer=paths("computer", "body.computer"),
        provider=paths("provider.name", "body.provider.name"),
        channel=paths("channel", "body.channel"),
        record_id=paths("record_id", "body.record_id"),
        event_id=paths("event_id.id", "body.event_id.id"),
        level=paths("level", "body.level"),
        at=paths("system_time", "body.system_time"),
        message=paths("message", "body.message"),
        values=paths("event_data.data", "body.event_data.data", "event_data", "body.event_data"),
    ),
)

_LEVELS = {"0": "Information", "1": "Critical", "2": "Error", "3": "Warning", "4": "Information"}
"""Windows' levels as numbers (winmeta.xml); 0 is written by old programs and by audits."""


def read_all(body: bytes | str) -> list[Part]:
    """Read a message; one that holds several events has a part for each."""
    try:
        found = bodies.documents(body)
    except Malformed as error:
        return [Part(body, error)]
    except RecursionError:
        return [Part(body, Malformed(_TOO_DEEP))]
    if len(found) == 1:
        return [Part(body, read_document(found[0], SHAPES))]
    return [Part(one.text, read_document(one, SHAPES)) for one in found]


def read(body: bytes | str) -> WindowsEvent:
    """Read a message that holds one event.

    Raises:
        Malformed: it is no event in any known shape, or more than one.
    """
    parts = read_all(body)
    if len(parts) > 1:
        raise Malformed(f"it holds {len(parts)} events")
    if isinstance(event := parts[0].event, Malformed):
        raise event
    return event


def read_document(document: Document, shapes: Iterable[Shape]) -> WindowsEvent | Malformed:
    """Read a document in the first of the shapes that it has; return why it cannot be read."""
    try:
        fields = document.fields()
        shape = _shape(fields, shapes)
        if shape is None and any("." in name for name in fields):
            fields = _nested(fields)
            shape = _shape(fields, shapes)
        if shape is None:
            raise UnknownShape(_NO_SHAPE)
        return _event(document.text, fields, shape)
    except Malformed as error:
        return error
    except RecursionError:
        return Malformed(_TOO_DEEP)


def host_of(body: bytes | str) -> str:
    """Return the host that a message names, even if it is malformed otherwise, or nothing."""
    try:
        fields = bodies.documents(body)[0].fields()
    except (Malformed, RecursionError):
        return ""
    return _host(fields, list(chain.from_iterable(shape.computer for shape in SHAPES)))


# --- The document -------------------------------------------------------------------------------

_TOO_DEEP = "it is nested too deeply"
_NO_SHAPE = (
    "it is no Windows event in a known shape: it has neither winlog (Winlogbeat 7 and later) nor "
    "source_name (Winlogbeat 6), RecordNumber (NXLog), EventRecordID (Fluent Bit), data.win.system "
    "(Wazuh) or event_id.id (OpenTelemetry); a mapping in the admin can name the fields of others"
)


def _shape(fields: Mapping[str, Any], shapes: Iterable[Shape]) -> Shape | None:
    return next((shape for shape in shapes if _first(fields, shape.marks) is not None), None)


def _first(fields: Any, places: Sequence[Path]) -> Any:
    """Return the first value that is there."""
    for path in places:
        value = fields
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None:
            return value
    return None


def _nested(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields whose names have dots as the objects that they stand for."""
    made: dict[str, Any] = {}
    for name, value in fields.items():
        *above, last = name.split(".")
        place = made
        for part in above:
            inner = place.setdefault(part, {})
            if not isinstance(inner, dict):
                break
            place = inner
        else:
            place.setdefault(last, value)
    return made


def _event(raw: str, fields: Mapping[str, Any], shape: Shape) -> WindowsEvent:
    host = _host(fields, shape.computer)
    if not host:
        raise Malformed(f"it names no host: {_dotted(shape.computer)} is missing")
    provider = _name(_first(fields, shape.provider), "provider", shape.provider)
    channel = _name(_first(fields, shape.channel), "channel", shape.channel)
    record_id = _number(_first(fields, shape.record_id), "record number", LARGEST_RECORD)
    at = _time(_first(fields, shape.at), shape)
    return WindowsEvent(
        host=host,
        provider=provider,
        channel=channel,
        record_id=record_id,
        event_id=_number(_first(fields, shape.event_id), "event id", LARGEST_EVENT),
        level=_level(_first(fields, shape.level)),
        at=at,
        message=_text(_first(fields, shape.message)),
        values=_values(_first(fields, shape.values)),
        addresses=_addresses(fields, host),
        digest=_digest(host, channel, record_id, at, provider),
        raw=raw,
    )


def _dotted(places: Sequence[Path]) -> str:
    return ".".join(places[0])


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


def _host(fields: Mapping[str, Any], computer: Sequence[Path]) -> str:
    """Return the host that logged the event, which need not be the one that shipped it."""
    host = fields.get("host")
    name = (host.get("name") or host.get("hostname")) if isinstance(host, dict) else host
    others = (_below(fields, part).get("hostname") for part in ("agent", "beat", "host"))
    logged_by = _host_name(_first(fields, computer))
    return hosts.origin(_host_name(name), map(_host_name, others), logged_by)


def _host_name(value: Any) -> str:
    return _line(value, LONGEST_NAME).lower()


def _addresses(document: Mapping[str, Any], host: str) -> tuple[str, ...]:
    """Return the host's addresses; those of a collector say nothing of whom it forwards."""
    shipper = _below(document, "host")
    given = shipper.get("ip") if _host_name(shipper.get("name")) == host else None
    listed = given if isinstance(given, list) else [given]
    lines = (_line(address, LONGEST_ADDRESS) for address in listed[:MOST_ADDRESSES])
    return tuple(line for line in lines if line)


def _name(value: Any, what: str, places: Sequence[Path]) -> str:
    if name := _line(value, LONGEST_NAME):
        return name
    raise Malformed(f"it names no {what}: {_dotted(places)} is missing")


def _level(value: Any) -> str:
    """Return a level by its name, also if it is given as Windows' number."""
    if type(value) is int:
        value = str(value)
    return _LEVELS.get(value, "") or _line(value, LONGEST_LEVEL) if isinstance(value, str) else ""


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


def _time(value: Any, shape: Shape) -> datetime:
    """Return the time; digits beyond microseconds are cut off, as Windows has seven."""
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        shown = "missing" if value is None else f"{str(value)[:40]!r}"
        words = f"its {_dotted(shape.at)} is {shown}, not a time with its zone"
        raise Malformed(f"{words}: {shape.hint}" if shape.hint else words)
    try:
        upper = value.upper().replace(",", ".")
        # Fluent Bit has a space before the zone.
        at = datetime.fromisoformat(upper[:_SECONDS] + upper[_SECONDS:].replace(" ", ""))
        if at.tzinfo is not UTC:
            at = at.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Malformed(f"its {_dotted(shape.at)} {value[:40]!r} is no time: {error}") from None
    if not EARLIEST <= at <= LATEST:
        raise Malformed(f"its {_dotted(shape.at)} {value[:40]!r} is out of all reason")
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
        given = dict(map(_named, range(1, MOST_VALUES + 1), given))
    if not isinstance(given, dict):
        return {}
    return {
        _text(name): _text(value) if isinstance(value, str) else json.dumps(value)
        for name, value in list(given.items())[:MOST_VALUES]
    }


def _named(number: int, value: Any) -> tuple[str, Any]:
    """Return a value of a list with its name; OpenTelemetry lists objects of one value each."""
    if isinstance(value, dict) and len(value) == 1:
        ((name, held),) = value.items()
        return name or f"param{number}", held
    return f"param{number}", value
