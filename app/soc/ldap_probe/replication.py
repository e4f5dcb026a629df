"""How far the servers of one replica group are behind each other.

OpenLDAP and 389-ds show each origin's newest change with its time, and a copy is behind from the
time of the first change that others had and it lacked when it was probed. A domain controller
counts its changes (highestCommittedUSN), and each other one shows up to which number it has them:
a copy is behind from when a number that it lacks was first seen. A counter that is below what it
was, or below what another controller has, in the same database (invocationId), was put back by a
copy of its disk: a USN rollback. A proper restore changes the invocationId.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from soc.ldap_probe.models import DirectoryServer

if TYPE_CHECKING:
    # Not every process that has the conditions needs the probe.
    from soc.ldap_probe.replicas import Copy

MOST_MARKS = 20
"""Databases of one server that are remembered, the newest last."""

REMEMBERED = timedelta(days=1)
"""How long a controller counts that answered to a server's name."""


def take(
    server: DirectoryServer, copy: Copy, before: Iterable[DirectoryServer], now: datetime
) -> None:
    """Record what a probe read; ``before`` are the others as they were before this round.

    Not as they are now: they may have got changes that were made after this server was read.
    """
    if copy.unread:
        # What was known stays: a rollback is not over because it cannot be seen any more.
        server.unjudged = copy.unread
        return
    server.csn, server.vector = copy.csn or server.csn, copy.vector
    server.usn, server.invocation = copy.usn, copy.invocation
    server.unjudged = _several(server, copy, now)
    if copy.usn is None:
        return
    marks = dict(server.marks)
    known = marks.pop(copy.invocation, {"usn": 0})
    highest = max([known["usn"], *(other.vector.get(copy.invocation, 0) for other in before)])
    if copy.usn < highest and "back_to" not in known:
        known = known | {"back_to": copy.usn, "from": highest}
    # A rollback lasts: numbers that were given out twice are lost when the counter has passed.
    marks[copy.invocation] = known | {"usn": max(highest, copy.usn)}
    server.marks = dict(list(marks.items())[-MOST_MARKS:])


def _several(server: DirectoryServer, copy: Copy, now: datetime) -> str:
    """Record who answered to the server's name; return a sentence if they are several."""
    since = (now - REMEMBERED).isoformat()
    seen = {name: at for name, at in server.controllers.items() if at > since}
    if copy.controller:
        seen[copy.controller] = now.isoformat()
    server.controllers = seen
    if len(seen) < 2:
        return ""
    return (
        f"This name stands for several controllers ({', '.join(sorted(seen))}): register each "
        "under its own name."
    )


def forget(server: DirectoryServer) -> None:
    """Drop what is known of a server's copy: it is compared with others from now on."""
    server.csn, server.missing, server.vector, server.usn = {}, {}, {}, None
    server.lag, server.unjudged = None, ""


def rolled_back(server: DirectoryServer) -> str:
    """Return a sentence if the server's database was put back by a copy of its disk."""
    mark = server.marks.get(server.invocation, {})
    if "back_to" not in mark:
        return ""
    return (
        f"Its counter of changes went back from {mark['from']} to {mark['back_to']} with the same "
        "invocationId: it was put back from a copy of its disk (USN rollback). The others ignore "
        "changes that it makes under numbers they have: take it out of the domain and promote it "
        "again."
    )


def measure(server: DirectoryServer, others: Iterable[DirectoryServer], now: datetime) -> None:
    """Set how many seconds a server is behind, or None where that cannot be known."""
    others = list(others)
    server.lag = None
    if server.unjudged:
        return
    if server.csn:
        _note_missing(server, others)
        since = min((_time(csn) for csn in server.missing.values()), default=now)
    elif server.vector or server.invocation:
        _note_numbers(server, others, now)
        moments = (datetime.fromisoformat(at) for _, at in server.missing.values())
        since = min(moments, default=now)
    else:
        return
    server.lag = max(0, int((now - since).total_seconds()))


def _note_missing(server: DirectoryServer, others: Iterable[DirectoryServer]) -> None:
    newest: dict[str, str] = {}
    for other in others:
        for origin, csn in other.csn.items():
            # Their text has one length, and so the order of their times.
            newest[origin] = max(newest.get(origin, ""), csn)
    # A change once missed counts from its own time on, until it is there: a newer one that is on
    # its way must not make the wait look short.
    still = {
        origin: csn
        for origin, csn in server.missing.items()
        if origin in newest and server.csn.get(origin, "") < csn
    }
    fresh = {origin: csn for origin, csn in newest.items() if server.csn.get(origin, "") < csn}
    server.missing = {**fresh, **still}


def _note_numbers(
    server: DirectoryServer, others: Iterable[DirectoryServer], now: datetime
) -> None:
    missing = {}
    for other in others:
        if other.usn is None or not other.invocation or other.unjudged:
            continue
        has = server.vector.get(other.invocation, 0)
        number, since = server.missing.get(other.invocation, (0, ""))
        if has < number:
            missing[other.invocation] = [number, since]
        elif has < other.usn:
            missing[other.invocation] = [other.usn, now.isoformat()]
    server.missing = missing


def _time(csn: str) -> datetime:
    return datetime.strptime(csn.partition("#")[0], "%Y%m%d%H%M%S.%fZ").replace(tzinfo=UTC)
