"""How far a server's copy is, as far as the server shows it to the credential.

OpenLDAP: ``contextCSN`` of the suffix. 389-ds: the replica update vector, which it shows to
anonymous clients even where a bound user does not get it. Active Directory and Samba: the number
of the server's newest change, and for each other controller the number up to which it has the
changes (MS-ADTS 3.1.1.1.9 and MS-DRSR 5.165, UPTODATE_VECTOR_V2_EXT).
"""

import re
import struct
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime

from soc.ldap_probe.session import Session
from soc.ldap_probe.wire import Deadline

_CSN = re.compile(r"(\d{14}\.\d{6}Z)#\w{6}#(\w{3})#\w{6}")
"""OpenLDAP's change sequence number: time, count, server, modifier (draft-ietf-ldup-lcup, 2.1)."""

_REPLICA = re.compile(r"\{replica (\d+)[^}]*\} [0-9a-f]{20} ([0-9a-f]{8})([0-9a-f]{4})[0-9a-f]{8}")
"""389-ds' vector: replica, oldest and newest change; a change's time and count in hexadecimal."""

_UPDATE_VECTOR = (
    "(&(nsuniqueid=ffffffff-ffffffff-ffffffff-ffffffff)(objectClass=nsTombstone))",
    "nsds50ruv",
)

_HEAD, _CURSOR = struct.Struct("<IIII"), struct.Struct("<16sQQ")


@dataclass(frozen=True)
class Copy:
    """How far a copy is.

    ``csn`` has the time of each origin's newest change (OpenLDAP and 389-ds). ``usn`` is the
    number of the server's own newest change, ``invocation`` the identity of the database that
    counts them, ``vector`` the numbers of the others' changes that are there, by their invocation,
    and ``controller`` the server's own name (Active Directory). ``unread`` says why the copy
    cannot be judged.
    """

    csn: dict[str, str] = field(default_factory=dict)
    usn: int | None = None
    invocation: str = ""
    vector: dict[str, int] = field(default_factory=dict)
    controller: str = ""
    unread: str = ""


def read(session: Session, deadline: Deadline) -> Copy:
    """Return how far the server's copy is; may end with an anonymous bind."""
    names = ("highestCommittedUSN", "dsServiceName", "dnsHostName", "defaultNamingContext")
    root = session.attributes("", (*names, "namingContexts"), deadline)
    base = session.target.base
    if number := root.get("highestcommittedusn"):
        return _of_controller(session, deadline, number[0], root)
    suffix = _suffix(base, root.get("namingcontexts", []))
    values = session.attributes(suffix, ["contextCSN"], deadline).get("contextcsn", [])
    if csn := {found[2]: found[1] for value in values if (found := _CSN.fullmatch(value))}:
        return Copy(csn=csn)
    query, name = _UPDATE_VECTOR
    values = session.attributes(suffix, [name], deadline, query).get(name, [])
    if not values and session.bind_anonymously(deadline):
        values = session.attributes(suffix, [name], deadline, query).get(name, [])
    if csn := {found[1]: _time_of(found) for value in values if (found := _REPLICA.match(value))}:
        return Copy(csn=csn)
    return Copy(
        unread=f"It shows neither contextCSN nor {name} of {suffix or 'any suffix'}: it has no "
        "replica, or the credential has no right to read them."
    )


def _of_controller(
    session: Session, deadline: Deadline, number: str, root: dict[str, list[str]]
) -> Copy:
    """Return how far a domain controller's copy of its own domain is."""
    service = "".join(root.get("dsservicename", [])[:1])
    suffix = "".join(root.get("defaultnamingcontext", [])[:1])
    settings = session.binary(service, ["invocationId", "objectClass"], deadline)
    vector = session.binary(suffix, ["replUpToDateVector"], deadline)
    invocation = _uuid(b"".join(settings.get("invocationid", [])))
    if not invocation:
        return Copy(unread="It does not show its invocationId: it needs a credential.")
    # Nobody takes changes from a read-only controller (MS-ADTS, 3.1.1.1.9).
    read_only = b"nTDSDSARO" in settings["objectclass"]
    return Copy(
        usn=int(number) if number.isdecimal() and not read_only else None,
        invocation="" if read_only else invocation,
        vector=_vector(b"".join(vector.get("repluptodatevector", []))),
        controller="".join(root.get("dnshostname", [])[:1]),
    )


def _vector(value: bytes) -> dict[str, int]:
    """Return the numbers of UPTODATE_VECTOR_V2_EXT by their invocations, nothing of other data."""
    if len(value) < _HEAD.size:
        return {}
    version, _, count, _ = _HEAD.unpack_from(value)
    if version != 2 or len(value) != _HEAD.size + count * _CURSOR.size:
        return {}
    cursors = _CURSOR.iter_unpack(value[_HEAD.size :])
    return {_uuid(invocation): number for invocation, number, _ in cursors}


def _uuid(value: bytes) -> str:
    return str(uuid.UUID(bytes_le=value)) if len(value) == 16 else ""


def _time_of(found: re.Match[str]) -> str:
    """Return a change of 389-ds as OpenLDAP writes its time, the count in place of a fraction."""
    moment = datetime.fromtimestamp(int(found[2], 16), UTC)
    return f"{moment:%Y%m%d%H%M%S}.{int(found[3], 16):06}Z"


def _suffix(base: str, contexts: list[str]) -> str:
    holding = [suffix for suffix in contexts if base.lower().endswith(suffix.lower())]
    return max(holding, key=len, default=contexts[0] if contexts else "")
