"""Reads what a logon robot writes into Windows' event log about one attempt.

The texts are those of ControlUp's Logon Simulator. Everything is found by its label: versions add
lines, leave some out, and put them in another order.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

LONGEST_NAME = 100
LONGEST_REASON = 300
LONGEST_PHASE = timedelta(hours=24)
"""A phase that took longer is no measurement."""

PHASES = {
    "store": "Storefront Connection Time",
    "client": "Receiver Startup",
    "connection": "Connection Time",
    "logon": "Logon Time",
    "logoff": "Logoff Time",
}
"""The phases of an attempt in their order, with the labels of how long they took."""

WAITED_FOR = ("store", "client", "connection", "logon")
"""The phases that a person waits for before there is a desktop."""


class Outcome(Enum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Attempt:
    """What is reported about one attempt; ``phases`` holds only those that were measured."""

    outcome: Outcome
    resource: str
    broker: str
    reason: str
    phases: Mapping[str, timedelta]

    @property
    def response(self) -> timedelta | None:
        """How long a person would have waited, if every phase of that was measured."""
        if not all(name in self.phases for name in WAITED_FOR):
            return None
        return sum((self.phases[name] for name in WAITED_FOR), timedelta())


_SPAN = r"(\d{1,4}):([0-5]?\d):([0-5]?\d)(?:[.,](\d{1,9}))?(?![\d:])"
_PHASES = {
    name: re.compile(rf"^[ \t]*{re.escape(label)}[ \t]*[:=][ \t]*{_SPAN}", re.I | re.M | re.A)
    for name, label in PHASES.items()
}
_RESULT = re.compile(r"^[ \t]*Latest Test Result[ \t]*[:=][ \t]*(True|False)\b", re.I | re.M)
_BEGINNING = re.compile(r"^[ \t]*(Successful|Failed) logon\b", re.I | re.M)
_RESOURCE = re.compile(
    r"\bto resource:[ \t]*([^\n]{1,300}?)[ \t]*(?:\bBrokered by device:|$)", re.I | re.M
)
_BROKER = re.compile(
    r"(?:\bBrokered by device|^[ \t]*Device)[ \t]*:[ \t]*([^\s]{1,300})", re.I | re.M
)
_REASON = re.compile(r"^[ \t]*Failure reason[ \t]*:[ \t]*([^\n]{1,1000})", re.I | re.M)


def read(message: str, values: Mapping[str, str]) -> Attempt:
    """Read an event's message and its values, named and not.

    The values come first: they are the event's own, the message is what a host that knows the
    texts has made of them.
    """
    # By name: shippers do not keep the order in which Windows gave the values.
    ordered = sorted(values.items())
    texts = [*(value for _, value in ordered), *map(": ".join, ordered), message]
    normal = [text.replace("\r\n", "\n").replace("\r", "\n") for text in texts]
    return Attempt(
        outcome=_outcome(normal),
        resource=_found(_RESOURCE, normal, LONGEST_NAME),
        broker=_found(_BROKER, normal, LONGEST_NAME),
        reason=_found(_REASON, normal, LONGEST_REASON),
        phases=_phases(normal),
    )


def _outcome(texts: Iterable[str]) -> Outcome:
    # The measured result before the words that head the text.
    for pattern, good in ((_RESULT, "true"), (_BEGINNING, "successful")):
        if match := _first(pattern, texts):
            return Outcome.SUCCEEDED if match[1].lower() == good else Outcome.FAILED
    return Outcome.UNKNOWN


def _phases(texts: Iterable[str]) -> dict[str, timedelta]:
    found = {}
    for name, pattern in _PHASES.items():
        if match := _first(pattern, texts):
            span = _span(match)
            if span <= LONGEST_PHASE:
                found[name] = span
    return found


def _span(match: re.Match[str]) -> timedelta:
    hours, minutes, seconds, fraction = match.groups()
    microseconds = int((fraction or "").ljust(6, "0")[:6])
    return timedelta(
        hours=int(hours), minutes=int(minutes), seconds=int(seconds), microseconds=microseconds
    )


def _found(pattern: re.Pattern[str], texts: Iterable[str], longest: int) -> str:
    match = _first(pattern, texts)
    return " ".join(match[1].split())[:longest] if match else ""


def _first(pattern: re.Pattern[str], texts: Iterable[str]) -> re.Match[str] | None:
    return next((match for text in texts if (match := pattern.search(text))), None)
