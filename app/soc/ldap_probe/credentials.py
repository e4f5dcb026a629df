"""How stored credentials are used, so that a wrong one locks no account.

A directory counts refused binds, and some lock the account after three. So one server goes first
with each credential; the others of the round follow when it was not refused. One that was refused
in two rounds in a row, by two servers where there are two, is tried again only after a while.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from soc.ldap_probe.diagnostics import Outcome
from soc.ldap_probe.models import Credential, DirectoryServer
from soc.ldap_probe.probe import Finding

REFUSALS = 2
PAUSE = timedelta(minutes=15)
HELD_BACK = "held_back"


def is_held(credential: Credential, now: datetime) -> bool:
    """Tell whether a credential must not be tried now."""
    if credential.refused_at is None or credential.refusals < REFUSALS:
        return False
    return now - credential.refused_at < PAUSE


def may_try(server: DirectoryServer, now: datetime) -> bool:
    """Tell whether a server may be asked to take its credential now."""
    if is_held(server.credential, now):
        return False
    return server.bind_refused_at is None or now - server.bind_refused_at >= PAUSE


def first_of_each(servers: Iterable[DirectoryServer], now: datetime) -> dict[int, DirectoryServer]:
    """Return the server that goes first with each credential, by the credential's key."""
    chosen: dict[int, DirectoryServer] = {}
    # A server that refused it lately says less about the credential than one that took it, or was
    # not asked; and the others would wait for one that hangs.
    for server in sorted(servers, key=lambda s: (s.bind_refused_at is not None, s.failures > 0)):
        if server.credential_id and may_try(server, now):
            chosen.setdefault(server.credential_id, server)
    return chosen


def note(
    servers: Sequence[DirectoryServer], findings: Mapping[int, Finding], now: datetime
) -> set[int]:
    """Note what became of each credential; return the keys of those that were used or held."""
    taken: dict[int, list[bool]] = {}
    for server in servers:
        finding = findings[server.pk]
        if server.credential_id and finding.bound is not None:
            taken.setdefault(server.credential_id, []).append(finding.bound)
            server.bind_refused_at = None if finding.bound else now
    for key, answers in taken.items():
        refusal = next(
            (
                findings[server.pk]
                for server in servers
                if server.credential_id == key and findings[server.pk].bound is False
            ),
            None,
        )
        credential = Credential.objects.filter(pk=key)
        if any(answers):
            credential.exclude(refusals=0).update(refusals=0, refused_at=None, refusal="")
        elif refusal and (found := credential.first()):
            credential.update(refusals=found.refusals + 1, refused_at=now, refusal=refusal.detail)
    return {server.credential_id for server in servers if server.credential_id}


def held_back(finding: Finding, credential: Credential) -> Finding:
    """Return what was found without a credential as what it says about one that was not tried."""
    if finding.outcome == Outcome.OK:
        finding.outcome, finding.error = Outcome.CREDENTIAL, HELD_BACK
        finding.detail = (
            f"It works for strangers. The credential {credential} was refused lately and not "
            "tried, so that no account is locked."
        )
    return finding


def forget_refusals(instance: Credential, **_: object) -> None:
    """Have a credential that was changed tried at once, by all its servers."""
    stored = Credential.objects.filter(pk=instance.pk).first()
    if stored and (stored.user, stored.password) != (instance.user, instance.password):
        instance.refusals, instance.refused_at, instance.refusal = 0, None, ""
        instance.servers.update(bind_refused_at=None)
