"""How stored credentials are used, so that a wrong one locks no account.

Directories count refused binds. Many lock the account after three to five, some never forget one
(OpenLDAP's ``pwdFailureCountInterval`` is 0 by default), and servers that replicate each other may
count together. So a credential is refused at most ``MOST_REFUSALS`` times in a row, by all servers
together and by each of them, and is then not tried until it is changed or a person says so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.db.models import Q
from django.db.models.functions import Least
from django.utils import timezone

from soc.ldap_probe.diagnostics import Outcome
from soc.ldap_probe.models import ANSWERED_BIND, Credential, DirectoryServer
from soc.ldap_probe.turns import Turns

if TYPE_CHECKING:
    # Not every process that has the conditions needs the probe.
    from soc.ldap_probe.probe import Finding

MOST_REFUSALS = 2
"""Below the lowest limit in use, 3, whatever else knows the password."""

HELD_BACK = "held_back"

_WITHOUT_BIND = {Outcome.DOWN, Outcome.TIMEOUT, Outcome.CERTIFICATE, Outcome.SECURITY}
"""What a probe without the credential finds out as surely as one with it."""


def is_held(credential: Credential) -> bool:
    """Return whether a credential is not tried any more."""
    return credential.refusals >= MOST_REFUSALS


def held(key: str) -> list[Credential]:
    """Return the credentials that are not tried any more, all of them or the one of a key."""
    found = Credential.objects.filter(refusals__gte=MOST_REFUSALS)
    return [credential for credential in found if key in ("", str(credential.pk))]


def turns(servers: Iterable[DirectoryServer]) -> dict[int, Turns]:
    """Return the turns of a round at each credential, by the credential's key.

    Those that took it last time come first. After a refusal nobody else is asked while there is
    one of them: whether it is the credential or the one server that is wrong is theirs to say.
    """
    using: dict[int, list[DirectoryServer]] = {}
    used: dict[int, Credential] = {}
    for server in servers:
        if credential := server.credential:
            using.setdefault(credential.pk, []).append(server)
            used[credential.pk] = credential
    doubtful = [key for key, credential in used.items() if credential.refusals]
    watched = DirectoryServer.objects.filter(enabled=True, credential__in=doubtful)
    taken = set(watched.filter(_TOOK_IT).values_list("credential", flat=True)) if doubtful else ()
    return {
        key: Turns(
            [] if is_held(used[key]) else _order(asked, only_takers=key in taken),
            [server.pk for server in asked if server.bind_refusals],
        )
        for key, asked in using.items()
    }


_TOOK_IT = Q(bound=True, state__in=ANSWERED_BIND)


def _took_it(server: DirectoryServer) -> bool:
    return server.bound is True and server.state in ANSWERED_BIND


def _order(servers: Sequence[DirectoryServer], *, only_takers: bool) -> list[int]:
    asked = [
        server
        for server in servers
        if server.bind_refusals < MOST_REFUSALS and (_took_it(server) or not only_takers)
    ]
    # The others wait for one that hangs.
    asked.sort(key=lambda s: (not _took_it(s), s.bind_refusals, s.failures > 0, s.pk))
    return [server.pk for server in asked]


def lease(keys: Collection[int], until: datetime, now: datetime) -> set[int]:
    """Reserve credentials for one round, and return the keys of those that no other round uses.

    To be called in the transaction that claims the servers. Two workers that bind with the same
    credential at the same time would add up their refusals.
    """
    # A time further ahead is of a clock that was wrong.
    used = Q(used_until__gt=now, used_until__lte=until)
    free = Credential.objects.filter(pk__in=keys).exclude(used)
    taken = list(free.select_for_update().order_by("pk").values_list("pk", flat=True))
    Credential.objects.filter(pk__in=taken).update(used_until=until)
    return set(taken)


def note(
    servers: Sequence[DirectoryServer], findings: Mapping[int, Finding], now: datetime
) -> set[int]:
    """Record what became of each credential; return the keys of those that were used or held."""
    keys = {server.credential_id for server in servers if server.credential_id is not None}
    stored = Credential.objects.filter(pk__in=keys).select_for_update().in_bulk()
    answers: dict[int, list[Finding]] = {}
    for server in servers:
        finding, credential = findings[server.pk], stored.get(server.credential_id or 0)
        # An answer about a password that was changed meanwhile says nothing of the new one.
        if finding.bound is None or not credential or _differ(credential, server.credential):
            continue
        answers.setdefault(credential.pk, []).append(finding)
        server.bound = finding.bound
        server.bind_refusals = 0 if finding.bound else server.bind_refusals + 1
        server.bind_refused_at = None if finding.bound else now
        left = finding.password_expires_in
        server.password_expires_at = None if left is None else now + timedelta(seconds=left)
    for key, credential in stored.items():
        found = answers.get(key, [])
        if any(finding.bound for finding in found):
            credential.refusals, credential.refused_at, credential.refusal = 0, None, ""
        for refusal in (finding for finding in found if not finding.bound):
            credential.refusals += 1
            credential.refused_at, credential.refusal = now, refusal.detail
        credential.used_until = None
    fields = ("refusals", "refused_at", "refusal", "used_until")
    Credential.objects.bulk_update(stored.values(), fields)
    return keys


def held_back(finding: Finding, credential: Credential, *, late: bool) -> Finding | None:
    """Return what a probe without the credential says about the server, None for nothing.

    What it reads says nothing of what the credential would: many servers show anonymous clients
    less, or nothing.
    """
    if finding.outcome in _WITHOUT_BIND:
        return finding
    if late:
        return None
    finding.outcome, finding.error = Outcome.CREDENTIAL, HELD_BACK
    finding.detail = (
        f"The server answers. The credential {credential} was refused and not tried here, so that "
        "no account is locked."
    )
    return finding


def try_now(chosen: Collection[int]) -> int:
    """Allow one more refusal of each credential, and make its servers due; return their number."""
    once = MOST_REFUSALS - 1
    Credential.objects.filter(pk__in=chosen).update(refusals=Least("refusals", once))
    servers = DirectoryServer.objects.filter(credential__in=chosen, enabled=True)
    return servers.update(bind_refusals=Least("bind_refusals", once), next_probe_at=timezone.now())


def forget_refusals(instance: Credential, **_: object) -> None:
    """Have a credential that was changed tried at once, by all its servers."""
    stored = Credential.objects.filter(pk=instance.pk).first()
    if stored and _differ(stored, instance):
        instance.refusals, instance.refused_at, instance.refusal = 0, None, ""
        instance.servers.update(
            bound=None, bind_refusals=0, bind_refused_at=None, password_expires_at=None
        )


def _differ(one: Credential, other: Credential | None) -> bool:
    return other is None or (one.user, one.password) != (other.user, other.password)
