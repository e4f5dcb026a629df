"""How far a server's copy is, as far as the server shows it."""

import re

from soc.ldap_probe.session import Session
from soc.ldap_probe.wire import Deadline

_CSN = re.compile(r"(\d{14}\.\d{6}Z)#\w{6}#(\w{3})#\w{6}")
"""OpenLDAP's change sequence number: time, count, server, modifier (draft-ietf-ldup-lcup, 2.1)."""


def read(session: Session, deadline: Deadline) -> tuple[dict[str, str], int | None]:
    """Return how far the server's copy is, as far as it tells."""
    names = ["highestCommittedUSN", "defaultNamingContext", "namingContexts"]
    root = session.attributes("", names, deadline)
    if usn := root.get("highestcommittedusn"):
        return {}, int(usn[0])
    suffix = _suffix(session.target.base, root.get("namingcontexts", []))
    values = session.attributes(suffix, ["contextCSN"], deadline).get("contextcsn", [])
    return {csn[2]: csn[0] for value in values if (csn := _CSN.fullmatch(value))}, None


def _suffix(base: str, contexts: list[str]) -> str:
    holding = [suffix for suffix in contexts if base.lower().endswith(suffix.lower())]
    return max(holding, key=len, default=contexts[0] if contexts else "")
