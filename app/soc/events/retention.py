"""Deletes what is too old, a little at a time, so that taking in events never waits for it."""

import time
from datetime import datetime, timedelta

from django.db import models
from django.utils import timezone

from soc.common.deadlocks import again_after_deadlock
from soc.events.models import Event, StreamSettings
from soc.events.readers import registered

BATCH = 1000
"""Rows of one statement: some 20 ms on MariaDB."""

PAUSE = 0.05
"""Seconds between two statements."""

LONGEST = 45.0
"""Seconds of one round; the next one goes on."""


def forget_old(until: float | None = None) -> dict[str, int]:
    """Delete raw events and what was made of them past their time; return how many of each.

    It ends at ``until`` by the monotonic clock, in good time before a task must end.
    """
    end = time.monotonic() + LONGEST if until is None else until
    settings = StreamSettings.current()
    now = timezone.now()
    deleted = {Event._meta.label: _forget(Event, now - timedelta(hours=settings.raw_hours), end)}
    limit = now - timedelta(days=settings.derived_days)
    for model in {reader.model for reader in registered()}:
        deleted[model._meta.label] = _forget(model, limit, end)
    return deleted


def _forget(model: type[models.Model], limit: datetime, end: float) -> int:
    """Delete rows received before ``limit``, which stand at the front in the order of their keys.

    Only the front is looked at, and only there is anything locked: new rows come at the other end.
    """
    total = 0
    # Rows from a time when the clock was ahead must not stand in the way of those behind them.
    rows = model._default_manager.filter(received_at__lte=timezone.now()).order_by("pk")
    while time.monotonic() < end:
        front = rows.values_list("pk", "received_at")[:BATCH]
        old = [key for key, received_at in front if received_at < limit]
        if not old:
            break
        total += _delete(model, old)
        if len(old) < BATCH:
            break
        time.sleep(PAUSE)
    return total


@again_after_deadlock
def _delete(model: type[models.Model], keys: list[int]) -> int:
    # A range of the primary key reads no list of a thousand; the keys between are as old.
    rows = model._default_manager.filter(pk__gte=keys[0], pk__lte=keys[-1], pk__in=keys)
    return rows._raw_delete(rows.db)
