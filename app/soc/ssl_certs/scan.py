"""Scans of endpoints: which are due, and a batch of them from the first packet to the last row."""

from collections.abc import Iterable, Sequence
from contextlib import closing
from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from soc.common import due
from soc.ssl_certs import probe, store
from soc.ssl_certs.models import Endpoint
from soc.ssl_certs.targets import Outcome, ProbeError

MOST_AT_ONCE = 1000
"""Endpoints that one tick claims at most: 10,000 endpoints an hour need 84 a tick of 30 s."""

BATCH = 500
"""Endpoints of one task: half of a tick, for the worker has two processes. Peers that hang are
waited for together, so that a hundred of them cost a task their time limit once."""

CLAIM = timedelta(minutes=10)
"""How long a claimed endpoint waits for its scan; one whose scan was lost falls due again."""

_STORED_AT_ONCE = 100


def claim_due() -> list[int]:
    """Return the keys of endpoints that are due, each claimed for one scan, the oldest first.

    Locks that are skipped let only one of two simultaneous ticks have an endpoint; the time keeps
    one whose scan is still waiting in the queue from being queued again.
    """
    now = timezone.now()
    enabled = Endpoint.objects.filter(enabled=True)
    due.recall(enabled, "next_scan_at", due.minutes("interval_minutes"), now)
    ready = enabled.filter(next_scan_at__lte=now).order_by("next_scan_at")
    with transaction.atomic():
        locked = ready.select_for_update(skip_locked=store.can_skip_locked())
        keys = list(locked.values_list("pk", flat=True)[:MOST_AT_ONCE])
        Endpoint.objects.filter(pk__in=keys).update(next_scan_at=now + CLAIM)
    return keys


def scan(keys: Sequence[int]) -> int:
    """Scan endpoints, record and report what was found; return how many mails that makes.

    Running twice harms nothing: the second scan finds what the first has written down. Keys of
    endpoints that are gone are left out.
    """
    endpoints = _read(keys)
    targets = {key: endpoint.target for key, endpoint in endpoints.items()}
    judge = store.Judge(timezone.now())
    mails, found = 0, []
    with closing(probe.collect_many(targets)) as results:
        for key, result in results:
            # Verified while others still shake hands.
            found.append(judge.judge(endpoints[key], result))
            if len(found) == _STORED_AT_ONCE:
                mails += store.store(found)
                found = []
    return mails + store.store(found)


def record_timeouts(keys: Iterable[int], since: datetime) -> int:
    """Record the endpoints of a task that ran out of time before it came to them.

    Returns how many mails that makes.
    """
    judge = store.Judge(timezone.now())
    error = ProbeError(Outcome.TIMEOUT, "The scan did not end within the task's time limit.")
    late = [
        endpoint
        for endpoint in _read(keys).values()
        if endpoint.scanned_at is None or endpoint.scanned_at < since
    ]
    return store.store([judge.judge(endpoint, error) for endpoint in late])


def _read(keys: Iterable[int]) -> dict[int, Endpoint]:
    found = Endpoint.objects.filter(pk__in=list(keys)).select_related("authority", "group")
    return {endpoint.pk: endpoint for endpoint in found.order_by()}
