"""How far the servers of one replication group are behind each other.

OpenLDAP tells each server's newest change with its time (contextCSN), and a copy is behind from
the time of the first change that others had and it lacked when it was probed. Active Directory's
highestCommittedUSN counts the changes of one server alone: numbers of two servers say nothing
about each other, but one that stands still while the others move does not get their changes, and
one that goes back was restored from a snapshot.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

from soc.ldap_probe.models import DirectoryServer
from soc.ldap_probe.probe import Finding


def take(server: DirectoryServer, finding: Finding, now: datetime) -> str:
    """Note what a probe read; return a sentence if the server's counter went back."""
    if finding.csn:
        server.csn = finding.csn
    if finding.usn is None:
        return ""
    before, server.usn = server.usn, finding.usn
    if before != finding.usn:
        server.usn_moved_at = now
    if before is not None and finding.usn < before:
        return (
            f"Its counter of changes went back from {before} to {finding.usn}: "
            "it was restored from a snapshot (USN rollback)."
        )
    return ""


def measure(server: DirectoryServer, others: Iterable[DirectoryServer], now: datetime) -> None:
    """Set how many seconds a server is behind, or None where that cannot be known."""
    others = list(others)
    server.lag = None
    if server.csn:
        _note_missing(server, others)
        since = min((_time(csn) for csn in server.missing.values()), default=now)
        server.lag = max(0, int((now - since).total_seconds()))
    elif server.usn_moved_at:
        moved = [other.usn_moved_at for other in others if other.usn_moved_at]
        ahead = max(moved, default=server.usn_moved_at) - server.usn_moved_at
        server.lag = max(0, int(ahead.total_seconds()))


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


def _time(csn: str) -> datetime:
    return datetime.strptime(csn.partition("#")[0], "%Y%m%d%H%M%S.%fZ").replace(tzinfo=UTC)
