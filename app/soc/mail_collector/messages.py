"""Reads what a mail robot writes into Windows' event log about one of its checks.

It is a JSON object: in the value ``param1`` of the event, else in any other of its values, else in
its message. The place of a value among the others says nothing, as shippers sort values by name or
not at all:

    {"type": "send", "status": "PASS", "wm_id": "000123", "message_id": "<1f3c@north>",
     "mailbox": "mail1-db2-robot07@north.example", "to": ["mail1-db1-robot02@south.example"],
     "text": "Taken after 0.4 s."}
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

FIRST_VALUE = "param1"
"""The name that Windows' event log gives to the first value of an event without a manifest."""

LONGEST_ADDRESS = 254
"""Characters of a mail address (RFC 5321, 4.5.3.1.3, without its brackets)."""

LONGEST_WM_ID = 100
LONGEST_MESSAGE_ID = 250
LONGEST_TEXT = 300
MOST_RECIPIENTS = 20


class Kind(Enum):
    """What a robot checks, in the order of its round."""

    CONFIGURATION = "configuration"
    CONNECTION = "connection"
    CREATE = "create"
    SEND = "send"
    RECEIVE = "receive"


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    A mail is known by ``wm_id``, the number that the robot has put into it, and ``message_id``
    together; they are the same at both ends. ``mailbox`` is the account that is checked, ``sender``
    and ``recipients`` are the ends of the mail. Addresses are in small letters.
    """

    kind: Kind
    passed: bool
    mailbox: str
    wm_id: str
    message_id: str
    sender: str
    recipients: tuple[str, ...]
    text: str


def read(message: str, values: Mapping[str, str]) -> Check:
    """Read an event's message and its values.

    Raises:
        ValueError: it is no check; the text says why.
    """
    data = _object(message, values)
    kind, mailbox = _kind(data.get("type")), _address(data.get("mailbox"))
    return Check(
        kind=kind,
        passed=_passed(data.get("status")),
        mailbox=mailbox,
        wm_id=_line(data.get("wm_id"), LONGEST_WM_ID),
        message_id=_line(data.get("message_id"), LONGEST_MESSAGE_ID).strip("<>"),
        sender=_address(data.get("from")) or (mailbox if kind == Kind.SEND else ""),
        # Whom a mail was meant for besides, its recipient cannot know.
        recipients=(mailbox,) if kind == Kind.RECEIVE and mailbox else _addresses(data.get("to")),
        text=_line(data.get("text"), LONGEST_TEXT),
    )


def domain(address: str) -> str:
    """Return the domain of a mail address, or nothing."""
    return address.rpartition("@")[2] if "@" in address else ""


def _object(message: str, values: Mapping[str, str]) -> dict[str, Any]:
    names = sorted(values, key=lambda name: (name.lower() != FIRST_VALUE, name))
    problems = []
    for text in (*(values[name] for name in names), message):
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            problems.append(str(error))
            continue
        if isinstance(data, dict):
            return data
        problems.append("it is JSON, but no object")
    raise ValueError(
        "A check of a mail robot is a JSON object; none of the event's values holds one, nor does "
        f"its message: {problems[0]}."
    )


def _kind(value: object) -> Kind:
    try:
        return Kind(str(value).strip().lower())
    except ValueError:
        known = ", ".join(kind.value for kind in Kind)
        raise ValueError(f"The type {_line(value, 40)!r} is none of {known}.") from None


def _passed(value: object) -> bool:
    word = str(value).strip().upper()
    if word not in ("PASS", "FAIL"):
        raise ValueError(f"The status {_line(value, 40)!r} is neither PASS nor FAIL.")
    return word == "PASS"


def _addresses(value: object) -> tuple[str, ...]:
    listed = value if isinstance(value, list) else [value]
    found = (_address(one) for one in listed[:MOST_RECIPIENTS])
    return tuple(dict.fromkeys(address for address in found if address))


def _address(value: object) -> str:
    """Return an address in small letters; nothing if it is none, or too long to be one."""
    address = _line(value, LONGEST_ADDRESS + 1).strip("<>").lower()
    name, at, host = address.rpartition("@")
    fits = len(address) <= LONGEST_ADDRESS and " " not in address
    return address if fits and name and at and host else ""


def _line(value: object, longest: int) -> str:
    """Return a text or a number as one line of printable characters."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    shown = "".join(letter if letter.isprintable() else " " for letter in str(value))
    return " ".join(shown.split())[:longest].rstrip()
