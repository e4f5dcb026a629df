"""Rounds of probes: the servers that are due, all at once, and what that makes of them."""

import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from datetime import datetime, timedelta

from django.db import connection, transaction
from django.utils import timezone

from soc.common import due
from soc.common.deadlocks import again_after_deadlock
from soc.core.sealed import SealProblem
from soc.core.severity import Severity
from soc.ldap_probe import conditions, credentials, replication, speed
from soc.ldap_probe.diagnostics import ANSWERED, Outcome, Phase, Security
from soc.ldap_probe.models import DirectoryServer, ProbeResult, State
from soc.ldap_probe.probe import HAS_CLIENT, DirectoryTarget, Finding, probe
from soc.ldap_probe.turns import Turn, Turns

MOST_IN_A_ROUND = 500
"""Servers that one round claims: those that hang must keep only their own threads busy."""

MOST_AT_ONCE = 100
"""Servers that are probed at the same time, by threads (docs/ldap.md has the measurement).

A probe lasts 15 s at most, and waits until 25 s of the round are over for its turn at a credential.
"""

BEGUN_WITHIN = 25.0
"""Seconds of a round after which no probe begins: the rest is due at once, in the next round."""

CLAIM = timedelta(seconds=120)
"""How long a claimed server waits for its round; one whose round was lost falls due again."""

RETRY = timedelta(minutes=1)
"""When a server that did not answer is probed again, the first time."""

POINTS = 36
"""Probes that the list's picture shows: three hours of every five minutes."""

_STATE_FIELDS = (
    *("next_probe_at", "probed_at", "state", "state_since", "detail", "failures", "recent"),
    *("bound", "bind_refusals", "bind_refused_at", "password_expires_at"),
    *("csn", "missing", "usn", "invocation", "vector", "marks", "controllers", "unjudged", "lag"),
)

logger = logging.getLogger(__name__)


def run() -> tuple[int, int]:
    """Probe the servers that are due; return how many they are, and how many mails that makes."""
    if not HAS_CLIENT:
        logger.warning("python-ldap is not installed: nothing is probed (docs/ldap.md)")
        return 0, 0
    servers = claim(timezone.now())
    if not servers:
        return 0, 0
    findings = probe_all(servers)
    return len(servers), record(servers, findings)


def claim(now: datetime) -> list[DirectoryServer]:
    """Return servers that are due, each claimed for one round."""
    watched = DirectoryServer.objects.filter(enabled=True)
    due.recall(watched, "next_probe_at", due.minutes("interval_minutes"), now)
    waiting = watched.filter(next_probe_at__lte=now)
    can_skip = connection.features.has_select_for_update_skip_locked
    with transaction.atomic():
        locked = waiting.order_by("next_probe_at").select_for_update(skip_locked=can_skip)
        found = dict(locked.values_list("pk", "credential")[:MOST_IN_A_ROUND])
        leased = credentials.lease({key for key in found.values() if key}, now + CLAIM, now)
        keys = [pk for pk, key in found.items() if key is None or key in leased]
        DirectoryServer.objects.filter(pk__in=keys).update(next_probe_at=now + CLAIM)
    claimed = DirectoryServer.objects.filter(pk__in=keys).order_by("pk")
    related = claimed.select_related("authority", "credential", "profile")
    return list(related.prefetch_related("profile__limits"))


# --- Probing ------------------------------------------------------------------------------------


def probe_all(servers: Sequence[DirectoryServer]) -> dict[int, Finding | None]:
    """Probe servers at the same time; return what was found by the servers' keys.

    There is None for one that waited too long for its turn at a credential, and nothing for one
    whose probe could not begin in time.
    """
    turns = credentials.turns(servers)
    last_start = time.monotonic() + BEGUN_WITHIN
    with ThreadPoolExecutor(min(len(servers), MOST_AT_ONCE), thread_name_prefix="probe") as pool:
        pending = {
            server.pk: pool.submit(_begin, server, turns.get(server.credential_id or 0), last_start)
            for server in _firsts_first(servers, turns)
        }
    began = ((key, future.result()) for key, future in pending.items())
    return {key: result[0] for key, result in began if result}


def _firsts_first(
    servers: Sequence[DirectoryServer], turns: Mapping[int, Turns]
) -> list[DirectoryServer]:
    """Return the servers that others of their credential wait for before all others."""
    firsts = {one.order[0] for one in turns.values() if one.order}
    return sorted(servers, key=lambda server: server.pk not in firsts)


def _begin(
    server: DirectoryServer, turns: Turns | None, last_start: float
) -> tuple[Finding | None] | None:
    if time.monotonic() > last_start:
        if turns:
            turns.leave(server.pk, None)
        return None
    return (_probe(server, turns),)


def _probe(server: DirectoryServer, turns: Turns | None) -> Finding | None:
    credential = server.credential
    if turns is None or credential is None:
        return probe(target_of(server))
    turn = Turn.GRANTED

    def may_bind() -> bool:
        nonlocal turn
        turn = turns.wait(server.pk)
        return turn == Turn.GRANTED

    bound = None
    try:
        finding = probe(target_of(server), may_bind=may_bind)
        bound = finding.bound
    except SealProblem as problem:
        return Finding(Outcome.CREDENTIAL, "sealed", detail=str(problem))
    finally:
        turns.leave(server.pk, bound)
    if turn == Turn.GRANTED:
        return finding
    return credentials.held_back(finding, credential, late=turn == Turn.LATE)


def target_of(server: DirectoryServer) -> DirectoryTarget:
    """Return a server as the probe takes it.

    Raises:
        SealProblem: the keys of this service do not open the credential.
    """
    credential = server.credential
    return DirectoryTarget(
        host=server.host,
        port=server.port,
        security=Security(server.security),
        authority=server.authority.pem if server.authority else "",
        user=credential.user if credential else "",
        password=credential.password.reveal() if credential else "",
        base=server.base,
        filter=server.filter,
        replication=bool(server.group),
        certificate_name=server.certificate_name,
    )


# --- Recording ----------------------------------------------------------------------------------


@again_after_deadlock
def record(servers: Sequence[DirectoryServer], findings: Mapping[int, Finding | None]) -> int:
    """Record and report what was found; return how many mails that makes."""
    now = timezone.now()
    with transaction.atomic():
        # One that was deleted or disabled meanwhile is nobody's any more.
        watched = DirectoryServer.objects.filter(
            pk__in=[server.pk for server in servers], enabled=True
        )
        rows = {row.pk: row for row in watched.select_for_update().order_by("pk")}
        found = {key: finding for key, finding in findings.items() if finding is not None}
        present = [
            _as_it_is_now(rows[asked.pk], asked)
            for asked in servers
            if asked.pk in found and asked.pk in rows and _same_question(rows[asked.pk], asked)
        ]
        answered = {server.pk for server in present}
        # One that was edited is asked again: what was found is about another question.
        again = {key for key in rows if key not in findings or key in found} - answered
        watched.filter(pk__in=again).update(next_probe_at=now)
        watched.filter(pk__in=rows.keys() & findings.keys() - found.keys()).update(
            next_probe_at=now + RETRY
        )
        results = [_take(server, found[server.pk], now) for server in present]
        _compare(present, found, now)
        for server, result in zip(present, results, strict=True):
            result.lag = server.lag
        # Refused binds count in the directory, whatever has become of the servers here.
        others = [copy(asked) for asked in servers if asked.pk in found.keys() - answered]
        used = credentials.note([*present, *others], found, now)
        DirectoryServer.objects.bulk_update(present, _STATE_FIELDS)
        ProbeResult.objects.bulk_create(results)
        return conditions.report(present, results, found, credentials=used, at=now)


_QUESTION = (
    *("host", "port", "security", "authority_id", "certificate_name", "base", "filter"),
    *("credential_id", "group"),
)


def _same_question(row: DirectoryServer, asked: DirectoryServer) -> bool:
    return all(getattr(row, name) == getattr(asked, name) for name in _QUESTION)


def _as_it_is_now(row: DirectoryServer, asked: DirectoryServer) -> DirectoryServer:
    """Return the row with what the round has read for it: the credential as it was used."""
    row.credential = asked.credential
    if row.profile_id == asked.profile_id:
        row.profile = asked.profile
    return row


def _take(server: DirectoryServer, finding: Finding, now: datetime) -> ProbeResult:
    """Bring a server into the state that a probe found it in."""
    limits = server.profile.limits.all() if server.profile else ()
    severity, slow = Severity.OK, ""
    if finding.outcome == Outcome.OK:
        severity, slow = speed.judge(limits, finding.milliseconds)
    state = State.SLOW if severity > Severity.OK else State(finding.outcome.value)
    if state != server.state:
        server.state, server.state_since = state, now
    answered = finding.outcome in ANSWERED
    server.detail = slow or finding.detail
    server.failures = 0 if answered else server.failures + 1
    server.probed_at = now
    server.recent = [*server.recent[1 - POINTS :], round(finding.total, 1) if answered else None]
    # A claim ends later: one that is due by now was asked for (Probe now) during the round.
    server.next_probe_at = now if server.next_probe_at <= now else server.slot_after(now)
    if server.failures == 1:
        server.next_probe_at = min(server.next_probe_at, now + RETRY)
    spent = finding.milliseconds
    return ProbeResult(
        server=server,
        at=now,
        outcome=finding.outcome.value,
        error=finding.error[:60],
        detail=server.detail,
        diagnostic=finding.diagnostic,
        severity=severity,
        address=finding.address,
        tls_version=finding.tls_version,
        **{f"{phase.value}_ms": spent.get(phase) for phase in Phase},
    )


def _compare(
    servers: Iterable[DirectoryServer], findings: Mapping[int, Finding], now: datetime
) -> None:
    """Measure how far servers of a group are behind."""
    grouped = [server for server in servers if server.group]
    if not grouped:
        return
    before: dict[str, list[DirectoryServer]] = defaultdict(list)
    names = {server.group for server in grouped}
    known = DirectoryServer.objects.filter(group__in=names, enabled=True)
    for member in known.only("group", "csn", "usn", "invocation", "vector", "unjudged"):
        before[member.group].append(member)
    for server in grouped:
        if copied := findings[server.pk].copy:
            others = [other for other in before[server.group] if other.pk != server.pk]
            replication.take(server, copied, others, now)
    # Those of this round are newer here than in the database.
    here = {server.pk: server for server in grouped}
    for server in grouped:
        if findings[server.pk].copy:
            members = [here.get(other.pk, other) for other in before[server.group]]
            replication.measure(server, [one for one in members if one is not server], now)
