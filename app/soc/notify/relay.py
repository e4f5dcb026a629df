"""The site's relay as all workers know it: whether it is down, when to probe it, and the pace.

A relay that is down is a fact about the site, not about a mail: nobody claims mail meanwhile, and
one worker at a time probes it.
"""

import logging
import random
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from soc.notify.models import Relay
from soc.notify.pace import Pace

FIRST_PROBE = timedelta(seconds=10)
LAST_PROBE = timedelta(minutes=5)
PROBE_LEASE = timedelta(minutes=2)
"""How long one worker may take over a probe before another may try."""

logger = logging.getLogger(__name__)


def locked() -> Relay:
    """Return the relay's row, locked until the end of the surrounding transaction."""
    return Relay.objects.select_for_update().get_or_create(pk=1)[0]


def is_down() -> bool:
    """Return whether the relay is known to be down."""
    return Relay.objects.filter(down_since__isnull=False).exists()


def pace() -> Pace:
    """Return the site's pace."""
    return Pace(settings.MAIL_PER_MINUTE)


def refill(row: Relay, now: datetime) -> None:
    """Bring the tokens of a locked row up to date."""
    if row.tokens_at is None:
        row.tokens = pace().size
    else:
        row.tokens = pace().filled(row.tokens, (now - row.tokens_at).total_seconds())
    row.tokens_at = now


def take_probe(row: Relay, now: datetime) -> bool:
    """Take the probe of a locked row that is down, if one is due and no other worker has it."""
    if row.next_probe_at is not None and row.next_probe_at > now:
        return False
    row.next_probe_at = now + PROBE_LEASE
    row.save(update_fields=["next_probe_at"])
    return True


def mark_down(error: Exception, began: datetime, *, by_mail: bool = False) -> None:
    """Record that the relay could not be used in an attempt that began at a moment.

    An attempt that began before the relay came back says nothing of it now. ``by_mail``: only a
    mail shows whether it is cured.
    """
    now = timezone.now()
    with transaction.atomic():
        row = locked()
        if row.up_since is not None and row.up_since > began:
            return
        if row.down_since is None:
            row.down_since, row.failures = now, 0
            logger.error("The relay is down, no mail goes out: %s", error)
        row.failures += 1
        row.next_probe_at = now + wait(row.failures)
        row.last_error = str(error)
        row.probed_by_mail = by_mail
        row.save()


def mark_up() -> None:
    """Record that the relay is back."""
    with transaction.atomic():
        row = locked()
        if row.down_since is None:
            return
        logger.warning("The relay is back; it was down since %s", row.down_since)
        row.down_since, row.next_probe_at, row.failures = None, None, 0
        row.up_since = timezone.now()
        row.save()


def probe_soon() -> None:
    """Make the next probe due, because somebody has said that the relay is cured."""
    Relay.objects.filter(down_since__isnull=False).update(next_probe_at=timezone.now())


def wait(failures: int) -> timedelta:
    """Return the time to the next probe: doubled each time, with jitter against a stampede."""
    longest = min(FIRST_PROBE * 2 ** min(failures, 10), LAST_PROBE)
    span = (longest - FIRST_PROBE).total_seconds()
    return FIRST_PROBE + timedelta(seconds=random.uniform(0, span))  # noqa: S311 (not a secret)
