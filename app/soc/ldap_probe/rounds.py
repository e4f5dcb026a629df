"""Rounds of probes: the servers that are due, all at once, and what that makes of them."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from copy import copy
from datetime import datetime, timedelta

from django.db import connection, transaction
from django.utils import timezone

from soc.core.sealed import SealProblem
from soc.core.severity import Severity
from soc.ldap_probe import conditions, credentials, replication, speed
from soc.ldap_probe.diagnostics import ANSWERED, Outcome
from soc.ldap_probe.models import DirectoryServer, ProbeResult, State
from soc.ldap_probe.probe import HAS_CLIENT, Finding, Phase, Security, Target, probe
from soc.notify.deadlocks import again_after_deadlock

MOST_AT_ONCE = 100
"""Servers of one round, each probed by a thread of its own (docs/ldap.md has the measurement).

A probe lasts 15 s at most, and those with a credential begin when its first one has ended: a round
of servers that all hang ends in 30 s, and 500 such servers are through in half of 5 minutes.
"""

CLAIM = timedelta(seconds=120)
"""How long a claimed server waits for its round; one whose round was lost falls due again."""

RETRY = timedelta(minutes=1)
"""When a server that did not answer is probed again, the first time."""

POINTS = 36
"""Probes that the list's picture shows: three hours of every five minutes."""

_STATE_FIELDS = (
    *("next_probe_at", "probed_at", "state", "state_since", "detail", "failures", "recent"),
    *("bind_refused_at", "csn", "missing", "usn", "usn_moved_at", "lag"),
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
    due = DirectoryServer.objects.filter(enabled=True, next_probe_at__lte=now)
    can_skip = connection.features.has_select_for_update_skip_locked
    with transaction.atomic():
        locked = due.order_by("next_probe_at").select_for_update(skip_locked=can_skip)
        keys = list(locked.values_list("pk", flat=True)[:MOST_AT_ONCE])
        DirectoryServer.objects.filter(pk__in=keys).update(next_probe_at=now + CLAIM)
    claimed = DirectoryServer.objects.filter(pk__in=keys).order_by("pk")
    related = claimed.select_related("authority", "credential", "profile")
    return list(related.prefetch_related("profile__limits"))


# --- Probing ------------------------------------------------------------------------------------


def probe_all(servers: Sequence[DirectoryServer]) -> dict[int, Finding]:
    """Probe servers at the same time; return what was found by the servers' keys."""
    now = timezone.now()
    first = credentials.first_of_each(servers, now)
    refused: set[int] = set()
    with ThreadPoolExecutor(min(len(servers), MOST_AT_ONCE), thread_name_prefix="probe") as pool:
        pending: dict[int, Future[Finding]] = {}
        for server in servers:
            if server.credential_id is None or first.get(server.credential_id) is server:
                pending[server.pk] = pool.submit(_probe, server, bind=True)
        wait([pending[server.pk] for server in first.values()])
        for key, server in first.items():
            if pending[server.pk].result().bound is False:
                refused.add(key)
        for server in servers:
            if server.pk not in pending:
                bind = server.credential_id not in refused and credentials.may_try(server, now)
                pending[server.pk] = pool.submit(_probe, server, bind=bind)
        return {key: future.result() for key, future in pending.items()}


def _probe(server: DirectoryServer, *, bind: bool) -> Finding:
    try:
        target = target_of(server, bind=bind)
    except SealProblem as problem:
        return Finding(Outcome.CREDENTIAL, "sealed", detail=str(problem), bound=False)
    finding = probe(target)
    if server.credential and not bind:
        return credentials.held_back(finding, server.credential)
    return finding


def target_of(server: DirectoryServer, *, bind: bool = True) -> Target:
    """Return a server as the probe takes it; without its credential, only the RootDSE is read.

    Raises:
        SealProblem: the keys of this service do not open the credential.
    """
    credential = server.credential
    as_nobody = credential is not None and not bind
    return Target(
        host=server.host,
        port=server.port,
        security=Security(server.security),
        authority=server.authority.pem if server.authority else "",
        user=credential.user if credential and bind else "",
        password=credential.password.reveal() if credential and bind else "",
        base="" if as_nobody else server.base,
        filter="" if as_nobody else server.filter,
        replication=bool(server.group) and not as_nobody,
    )


# --- Recording ----------------------------------------------------------------------------------


@again_after_deadlock
def record(servers: Sequence[DirectoryServer], findings: Mapping[int, Finding]) -> int:
    """Record and report what was found; return how many mails that makes."""
    now = timezone.now()
    with transaction.atomic():
        # One that was deleted or disabled meanwhile is nobody's any more.
        watched = DirectoryServer.objects.filter(
            pk__in=[server.pk for server in servers], enabled=True
        )
        keys = set(watched.select_for_update().order_by("pk").values_list("pk", flat=True))
        # Copies: a transaction that begins again begins with the servers as they were.
        present = [copy(server) for server in servers if server.pk in keys]
        results = [_take(server, findings[server.pk], now) for server in present]
        said = _compare(present, findings, now)
        for server, result in zip(present, results, strict=True):
            result.lag = server.lag
        used = credentials.note(present, findings, now)
        DirectoryServer.objects.bulk_update(present, _STATE_FIELDS)
        ProbeResult.objects.bulk_create(results)
        return conditions.report(
            present, results, findings, rolled_back=said, credentials=used, at=now
        )


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
    server.next_probe_at = server.slot_after(now)
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
) -> dict[int, str]:
    """Measure how far servers of a group are behind; return what is wrong with their counters."""
    grouped = [server for server in servers if server.group]
    if not grouped:
        return {}
    said = {
        server.pk: text
        for server in grouped
        if (text := replication.take(server, findings[server.pk], now))
    }
    here = {server.pk: server for server in grouped}
    members: dict[str, list[DirectoryServer]] = defaultdict(list)
    names = {server.group for server in grouped}
    known = DirectoryServer.objects.filter(group__in=names, enabled=True)
    for member in known.only("pk", "group", "csn", "usn_moved_at"):
        # Those of this round are newer here than in the database.
        members[member.group].append(here.get(member.pk, member))
    for server in grouped:
        finding = findings[server.pk]
        if finding.csn or finding.usn is not None:
            others = [other for other in members[server.group] if other.pk != server.pk]
            replication.measure(server, others, now)
    return said
