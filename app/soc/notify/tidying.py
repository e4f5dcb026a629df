"""What happens to waiting mail without the relay: it is held, taken back, or expires."""

import logging
from datetime import datetime

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from soc.common.batches import batched
from soc.common.deadlocks import again_after_deadlock
from soc.notify import channels, destinations
from soc.notify import rows as outbox_rows
from soc.notify.models import LIFE, OutboundMail, Relay, Subscription

State = OutboundMail.State

logger = logging.getLogger(__name__)


def tidy() -> None:
    """Hold what quiet hours hold, take back what is switched off, and let the rest expire."""
    now = timezone.now()
    for subscription in Subscription.objects.all():
        waiting = outbox_rows.waiting(subscription)
        if not subscription.enabled:
            _change(waiting, state=State.WITHDRAWN, next_try_at=None, withdrawn_at=now)
        elif end := subscription.quiet_end(now):
            # Last mails have been judged by what they end.
            open_ones = waiting.filter(outbox_rows.gatherable(), concluded_at__isnull=True)
            due = open_ones.filter(next_try_at__lte=now)
            if subscription.quiet_breakthrough is not None:
                due = due.filter(severity__lt=subscription.quiet_breakthrough)
            _change(due, next_try_at=end, expires_at=end + LIFE, gathered=True)
    # What was withdrawn while a worker had it in hand, and the worker died.
    left_behind = OutboundMail.objects.filter(next_try_at__lte=now, withdrawn_at__isnull=False)
    _change(left_behind, state=State.WITHDRAWN, next_try_at=None)
    _expire(now)


def _expire(now: datetime) -> None:
    """Give up mails that were not sent in their time, except those that a worker has in hand."""
    waiting = OutboundMail.objects.filter(next_try_at__isnull=False, expires_at__lte=now)
    late = waiting.filter(Q(state=State.QUEUED) | Q(next_try_at__lte=now))
    blank, of_mail = late.filter(last_error=""), Q(channel=channels.EMAIL)
    reasons = [
        (~of_mail & Q(subscription=key), row.last_error) for key, row in destinations.down().items()
    ]
    if row := Relay.objects.filter(down_since__isnull=False).first():
        reasons.append((of_mail, row.last_error))
    reasons.append((Q(), "No worker came to it in time."))
    counts = [(_give_up(blank.filter(which), last_error=why), why) for which, why in reasons]
    count = sum(found for found, _ in counts) + _give_up(late)
    if count:
        words = "; ".join(dict.fromkeys(why for found, why in counts if found))
        logger.error("%d mails were not sent in their time: %s", count, words or "see their pages")


def _give_up(rows: QuerySet[OutboundMail], **values: object) -> int:
    return _change(rows, state=State.EXPIRED, next_try_at=None, **values)


def _change(rows: QuerySet[OutboundMail], **values: object) -> int:
    """Update rows in short transactions, except those that somebody else has locked."""
    keys = list(rows.order_by("pk").values_list("pk", flat=True))
    parts = batched(keys, outbox_rows.CHANGED_AT_ONCE)
    return sum(_change_some(rows.filter(pk__in=part), values) for part in parts)


@again_after_deadlock
def _change_some(rows: QuerySet[OutboundMail], values: dict[str, object]) -> int:
    with transaction.atomic():
        mine = list(outbox_rows.unlocked(rows).order_by("pk").values_list("pk", flat=True))
        return OutboundMail.objects.filter(pk__in=mine).update(**values)
