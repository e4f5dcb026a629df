"""What the outbox and the relay say of themselves, for those who look after the site."""

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, Q

from soc.notify import channels
from soc.notify.models import Bounce, Destination, OutboundMail, Relay, Subscription

State = OutboundMail.State

MOST_BOUNCES = 10
"""Recipients whose mail came back that pages name."""


@dataclass(frozen=True)
class RelayState:
    """Whether the relay is down: since when, how often it was found so, and why."""

    down_since: datetime | None = None
    next_probe_at: datetime | None = None
    failures: int = 0
    error: str = ""


@dataclass(frozen=True)
class MailCounts:
    """How many mails wait now, and what did not get out recently."""

    waiting: int
    """Due, or in a worker's hand, or to be tried again."""
    held: int
    """Gathered for a digest whose time has not come."""
    failed: int
    expired: int


def relay_state() -> RelayState:
    """Return what is known of the relay."""
    row = Relay.objects.filter(down_since__isnull=False).first()
    if row is None:
        return RelayState()
    return RelayState(row.down_since, row.next_probe_at, row.failures, row.last_error)


def destinations() -> list[tuple[Subscription, Destination | None]]:
    """Return the subscriptions of other channels than mail, each with its destination if down.

    What a disabled one has waits for nobody, and so it is not down.
    """
    posting = Subscription.objects.exclude(channel=channels.EMAIL).select_related("destination")
    return [(one, _held(one)) for one in posting.order_by("name")]


def _held(subscription: Subscription) -> Destination | None:
    row: Destination | None = getattr(subscription, "destination", None)
    return row if row and row.down_since and subscription.enabled else None


def bounced_recipients() -> list[Bounce]:
    """Return some of the recipients whose mail came back, the latest first."""
    return list(Bounce.objects.all()[:MOST_BOUNCES])


def counts(now: datetime, since: datetime) -> MailCounts:
    """Return how many mails wait at ``now``, and how many failed or expired of those since."""
    held = Q(gathered=True, state=State.QUEUED, next_try_at__gt=now)
    waiting = OutboundMail.objects.filter(next_try_at__isnull=False).aggregate(
        all=Count("pk"), held=Count("pk", filter=held)
    )
    recently = OutboundMail.objects.filter(created_at__gt=since).aggregate(
        failed=Count("pk", filter=Q(state=State.FAILED)),
        expired=Count("pk", filter=Q(state=State.EXPIRED)),
    )
    return MailCounts(waiting["all"] - waiting["held"], waiting["held"], **recently)
