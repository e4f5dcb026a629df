"""Destinations of other channels than mail: which are held, since when, and until when.

A destination is a subscription's. One that is down is held alone; when its time has come, one
message tries whether it is back.
"""

import logging
from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from soc.notify import channels, relay
from soc.notify.models import Destination, OutboundMail

LEASE = timedelta(minutes=2)
"""How long a worker may take over the message that tries a destination before another may try."""

logger = logging.getLogger(__name__)


def down() -> dict[int, Destination]:
    """Return the destinations that are down, by their subscriptions."""
    rows = Destination.objects.filter(down_since__isnull=False)
    return {row.subscription_id: row for row in rows}


def one_each(
    mails: Iterable[OutboundMail], rows: dict[int, Destination], now: datetime
) -> list[OutboundMail]:
    """Return mails less all but the first for each destination that is down and due to be tried."""
    kept, tried = [], set()
    for mail in mails:
        key = mail.subscription_id or 0
        if mail.channel != channels.EMAIL and key in rows:
            if key in tried:
                continue
            tried.add(key)
        kept.append(mail)
    Destination.objects.filter(subscription__in=tried).update(next_try_at=now + LEASE)
    return kept


def mark_down(mail: OutboundMail, words: str, wait: timedelta | None, began: datetime) -> None:
    """Hold a mail's destination, for as long as it asks or longer each time.

    An attempt that began before it came back says nothing of it now.
    """
    if mail.subscription_id is None:
        return
    now = timezone.now()
    with transaction.atomic():
        row = _locked(mail.subscription_id)
        if row.up_since is not None and row.up_since > began:
            return
        if row.down_since is None:
            row.down_since, row.failures = now, 0
            logger.error("The destination of %s is down, it is held: %s", mail.subscription, words)
        row.failures += 1
        row.next_try_at = now + max(relay.wait(row.failures), wait or timedelta())
        row.last_error = words
        row.save()


def mark_up(mail: OutboundMail) -> None:
    """Record that a mail's destination answers."""
    found = Destination.objects.filter(subscription=mail.subscription_id, down_since__isnull=False)
    values = {"down_since": None, "next_try_at": None, "failures": 0, "up_since": timezone.now()}
    if found.update(**values):
        logger.warning("The destination of %s is back", mail.subscription)


def probe_soon() -> None:
    """Have the destinations that are down tried at once: somebody says that they are cured."""
    Destination.objects.filter(down_since__isnull=False).update(next_try_at=timezone.now())


def _locked(subscription: int) -> Destination:
    rows = Destination.objects.select_for_update()
    return rows.get_or_create(subscription_id=subscription)[0]
