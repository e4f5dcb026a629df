"""Which rows of the outbox wait, are due, or may be claimed, as queries."""

from collections.abc import Mapping
from datetime import datetime

from django.db import connection
from django.db.models import Q, QuerySet

from soc.notify import channels
from soc.notify.models import Destination, OutboundMail, Subscription

CHANGED_AT_ONCE = 20
"""Rows in one statement: few, or the database reads the whole table for them and waits for the rows
of others on its way."""

Kind = OutboundMail.Kind
State = OutboundMail.State


def due(now: datetime) -> QuerySet[OutboundMail]:
    """Return what is to go out by now, unless it is too old or withdrawn."""
    return OutboundMail.objects.filter(
        next_try_at__lte=now, expires_at__gt=now, withdrawn_at__isnull=True
    )


def claimable(
    relay_is_down: bool, down: Mapping[int, Destination], now: datetime
) -> QuerySet[OutboundMail]:
    """Return what is due and not held by an outage of the relay or of its own destination."""
    found, of_mail = due(now), Q(channel=channels.EMAIL)
    if relay_is_down:
        found = found.exclude(of_mail)
    if held := [key for key, row in down.items() if row.next_try_at and row.next_try_at > now]:
        found = found.filter(of_mail | Q(subscription=None) | ~Q(subscription__in=held))
    return found


def gatherable() -> Q:
    """Return the condition of notices that nobody can have got yet, and that a digest may hold."""
    return Q(kind=Kind.NOTICE, state=State.QUEUED, alone=False)


def unlocked(rows: QuerySet[OutboundMail]) -> QuerySet[OutboundMail]:
    """Lock rows, except those that somebody else has locked."""
    return rows.select_for_update(skip_locked=connection.features.has_select_for_update_skip_locked)


def waiting(subscription: Subscription) -> QuerySet[OutboundMail]:
    """Return what waits for a subscription."""
    # Only what is not done with has a next try, which is what the index is for.
    return OutboundMail.objects.filter(
        subscription=subscription, next_try_at__isnull=False, state=State.QUEUED
    )
