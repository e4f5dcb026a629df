"""Delivery: due mails are claimed by one worker, sent by their channel, and marked.

A claim locks the relay's row, then takes mails and skips those that somebody else has locked: it
waits for no mail, and so no writer and no claim wait for each other in a ring.
"""

import logging
import random
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from django.db import OperationalError, connection, transaction
from django.db.models import Case, DateTimeField, F, Q, QuerySet, Value, When
from django.utils import timezone

from soc.common.batches import batched
from soc.common.deadlocks import again_after_deadlock
from soc.notify import channels, destinations, digest, relay, rows, smtp, templates, tidying
from soc.notify.channels import email
from soc.notify.channels.base import Reply, Unavailable
from soc.notify.models import (
    CLAIM,
    LIFE,
    Destination,
    OutboundMail,
    Relay,
    Subscription,
)
from soc.notify.recipients import Recipients

BATCH = 5
"""Mails that one worker claims at a time: few, so that several workers share a storm."""

PATIENCE = 30.0
"""Seconds after which a run claims no more mail; the queue's time limit is twice that."""

LEAST_RETRY = timedelta(seconds=5)
FIRST_RETRY = timedelta(seconds=30)
LONGEST_RETRY = timedelta(minutes=30)

PAUSES = (0.2, 1.0, 5.0, 10.0)
"""Seconds between the attempts to mark a mail."""

Kind = OutboundMail.Kind
State = OutboundMail.State

_TOO_SLOW = "It took too long to answer."

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Claim:
    """What a worker may do next: send mails, wait for the pace, probe the relay, or nothing."""

    mails: Sequence[OutboundMail] = ()
    wait: float = 0.0
    probe: bool = False
    trial: bool = False
    """The one mail tries whether the relay is back."""


def exceeds_a_batch() -> bool:
    """Return whether there is more to send now than one worker claims at a time."""
    now = timezone.now()
    claimable = rows.claimable(relay.is_down(), destinations.down(), now)
    return claimable[: BATCH + 1].count() > BATCH


def send_due() -> int:
    """Send the mail that is due, for ``PATIENCE`` at most, and return how many went out."""
    tidying.tidy()
    sent = 0
    end = time.monotonic() + PATIENCE
    while (left := end - time.monotonic()) > 0:
        began = timezone.now()
        claim = _claim()
        if claim.probe:
            _probe(began)
        elif claim.wait:
            time.sleep(min(claim.wait, left))
        elif claim.mails:
            sent += _send(claim, began, end)
        else:
            break
    return sent


def _probe(began: datetime) -> None:
    try:
        smtp.probe(email.site_addresses())
    except smtp.RelayDown as error:
        relay.mark_down(error, began)
    else:
        relay.mark_up()


# --- Claiming -----------------------------------------------------------------------------------


@again_after_deadlock
def _claim() -> Claim:
    """Claim some due mails for this worker, within the site's pace.

    A claim whose worker died falls due again. The query reads one index in its order, so that it
    locks the rows it takes and no more.
    """
    now = timezone.now()
    with transaction.atomic():
        row = relay.locked()
        if row.down_since is not None and relay.take_probe(row, now):
            return _trial(now) if row.probed_by_mail else Claim(probe=True)
        relay.refill(row, now)
        down = destinations.down()
        claimable = rows.claimable(row.down_since is not None, down, now)
        if row.tokens < 1:
            wait = relay.pace().wait(row.tokens) if claimable.exists() else 0.0
            return Claim(wait=wait)
        heads = rows.unlocked(claimable).order_by("next_try_at")[: min(BATCH, int(row.tokens))]
        mails = _bundled(destinations.one_each(heads, down, now), row, now)
        row.tokens -= len(mails)
        row.save(update_fields=["tokens", "tokens_at"])
        _take(mails, now)
    return Claim(mails)


def _trial(now: datetime) -> Claim:
    """Claim the mail that is due first, to try the relay with it."""
    due = rows.due(now).filter(channel=channels.EMAIL)
    mails = list(rows.unlocked(due).order_by("next_try_at")[:1])
    _take(mails, now)
    return Claim(mails, probe=not mails, trial=True)


def _take(mails: Sequence[OutboundMail], now: datetime) -> None:
    for mail in mails:
        mail.attempts += 1
    OutboundMail.objects.filter(pk__in=[mail.pk for mail in mails]).update(
        state=State.SENDING,
        next_try_at=now + CLAIM,
        attempts=F("attempts") + 1,
        alone=True,
    )


def _bundled(heads: Iterable[OutboundMail], row: Relay, now: datetime) -> list[OutboundMail]:
    """Return mails to send: a digest in place of the notices of a subscription that need one."""
    heads = list(heads)
    owners = [
        mail.subscription_id
        for mail in heads
        if mail.subscription_id is not None and mail.state == State.QUEUED
    ]
    digests: dict[int, OutboundMail | None] = {
        subscription.pk: _digest(subscription, row, now)
        for subscription in Subscription.objects.filter(pk__in=owners)
    }
    mails = [mail for mail in digests.values() if mail]
    for head in heads:
        may_be_gathered = head.kind == Kind.NOTICE and not head.alone
        if not (may_be_gathered and digests.get(head.subscription_id or 0)):
            mails.append(head)
    return mails


def _digest(subscription: Subscription, row: Relay, now: datetime) -> OutboundMail | None:
    """Return a digest of a subscription's waiting notices if it is to have one, or None.

    It is to have one when two or more were gathered (quiet hours, a digest interval, an outage of
    the relay), or when more than its storm limit wait at once.
    """
    if not channels.of(subscription.channel).digests:
        return None
    waiting = rows.waiting(subscription).filter(rows.gatherable(), expires_at__gt=now)
    due = Q(next_try_at__lte=now)
    gathered = Q(gathered=True)
    if (up_since := _up_since(subscription, row)) is not None:
        gathered |= Q(created_at__lte=up_since)
    # What the relay has put off waits too, and what was gathered goes along with what is due.
    ready, along = due | Q(gathered=False, attempts__gt=0), gathered
    if subscription.quiet_end(now):
        ready, along = due, gathered & due
    stormy = (
        waiting.filter(ready)[: subscription.storm_limit + 1].count() > subscription.storm_limit
    )
    several = waiting.filter(gathered & due).exists() and waiting.filter(along)[:2].count() > 1
    if not (stormy or several):
        return None
    wanted = ready if stormy else due
    if several:
        wanted |= along
    members = list(rows.unlocked(waiting.filter(wanted)).order_by("pk").only(*digest.NEEDED))
    return _compose(subscription, members, now) if len(members) > 1 else None


def _up_since(subscription: Subscription, row: Relay) -> datetime | None:
    """Return when the last outage ended of what takes a subscription's messages, if it had one."""
    if subscription.channel == channels.EMAIL:
        return row.up_since
    found = Destination.objects.filter(subscription=subscription)
    return found.values_list("up_since", flat=True).first()


def _compose(
    subscription: Subscription, members: Sequence[OutboundMail], now: datetime
) -> OutboundMail:
    rendered = digest.render(subscription, members)
    mail = OutboundMail.objects.create(
        subscription=subscription,
        dedupe_key=f"digest:{uuid.uuid4().hex}",
        kind=Kind.DIGEST,
        severity=digest.severity_of(members),
        title=digest.title_of(members),
        channel=subscription.channel,
        recipients=Recipients(now).of(subscription) or _named(members),
        subject=rendered.subject,
        text=rendered.text,
        html=rendered.html,
        csv=digest.table(members) if subscription.csv else "",
        csv_name=digest.CSV_NAME if subscription.csv else "",
        attempts=max(member.attempts for member in members),
        created_at=now,
        next_try_at=now,
        expires_at=now + LIFE,
    )
    for part in batched([member.pk for member in members], rows.CHANGED_AT_ONCE):
        OutboundMail.objects.filter(pk__in=part).update(
            state=State.DIGESTED, digest=mail, next_try_at=None
        )
    return mail


def _named(members: Iterable[OutboundMail]) -> list[str]:
    """Return whom notices were for, which is who was on call when they were written."""
    return list(dict.fromkeys(name for member in members for name in member.recipients))


# --- Sending ------------------------------------------------------------------------------------


def _send(claim: Claim, began: datetime, end: float) -> int:
    """Send claimed mails until ``end`` on the monotonic clock; return how many went out."""
    sent, mails = 0, claim.mails
    for position, mail in enumerate(mails):
        if position and time.monotonic() > end:
            _release(mails[position:])
            break
        try:
            replies = channels.of(mail.channel).deliver(mail) if mail.outstanding else {}
        except smtp.RelayDown as error:
            relay.mark_down(error, began, by_mail=error.by_mail)
            _release(mails[position:], str(error))
            break
        except smtp.ConnectionLost as error:
            _postpone(mail, str(error), None, alone=True)
        except Unavailable as error:
            _hold(mail, error, began)
            _release(mails[position + 1 :])
            break
        except SoftTimeLimitExceeded:
            smtp.close()
            if mail.channel != channels.EMAIL:
                destinations.mark_down(mail, _TOO_SLOW, None, began)
            _postpone(mail, _TOO_SLOW, None, alone=True)
            _release(mails[position + 1 :])
            raise
        else:
            if mail.channel != channels.EMAIL:
                destinations.mark_up(mail)
            elif claim.trial:
                relay.mark_up()
            sent += _record(mail, replies)
    return sent


def _hold(mail: OutboundMail, error: Unavailable, began: datetime) -> None:
    """Hold the destination of a mail, which is tried again: apart, if they may have it already."""
    destinations.mark_down(mail, str(error), error.wait, began)
    if error.uncertain:
        _postpone(mail, str(error), error.code or None, alone=True)
    else:
        _release([mail], str(error))


def _record(mail: OutboundMail, replies: Mapping[str, Reply]) -> bool:
    """Record what the relay said of each recipient; return whether the mail is out."""
    mail.delivered += [address for address, reply in replies.items() if reply.taken]
    mail.refused |= {
        address: str(reply) for address, reply in replies.items() if reply.final and not reply.taken
    }
    deferred = {address: reply for address, reply in replies.items() if not reply.final}
    if deferred:
        code = next(iter(deferred.values())).code
        words = _words(mail, {address: str(reply) for address, reply in deferred.items()})
        alone = mail.alone or bool(mail.delivered or mail.refused)
        _postpone(mail, words, code, alone=alone)
        return False
    if mail.delivered:
        taken = [reply.code for reply in replies.values() if reply.taken]
        _mark_sent(mail, taken[0] if taken else None)
        return True
    _fail(mail, next((reply.code or None for reply in replies.values()), None))
    return False


def _words(mail: OutboundMail, replies: Mapping[str, str]) -> str:
    """Return the relay's words on recipients, or once if it said the same of all."""
    distinct = set(replies.values())
    if len(distinct) == 1 and len(replies) == len(mail.recipients):
        return distinct.pop()
    return templates.words_of(replies)


def _mark_sent(mail: OutboundMail, code: int | None) -> None:
    refused = templates.words_of(mail.refused)
    sent = {"state": State.SENT, "next_try_at": None, "sent_at": timezone.now()}
    _settle(mail, {**sent, "smtp_code": code, "last_error": refused})
    if refused:
        logger.warning("Mail %s went out, but not to all: %s", mail.pk, refused)


def take_back(mail: OutboundMail, address: str, words: str) -> None:
    """Count a recipient of a sent mail as refused; if nobody is left, the fallback gets a copy.

    The caller has locked the mail's row.
    """
    mail.delivered = [other for other in mail.delivered if other != address]
    mail.refused |= {address: words}
    mail.last_error = _words(mail, mail.refused)
    if not mail.delivered:
        mail.state = State.FAILED
    mail.save(update_fields=["delivered", "refused", "last_error", "state"])
    if mail.state == State.FAILED:
        _fall_back(mail, mail.last_error)


def _fail(mail: OutboundMail, code: int | None) -> None:
    """Give a mail up that is refused for all; its fallback recipients, if any, get a copy."""
    words = _words(mail, mail.refused) or "It has no recipients."
    logger.error("Mail %s to %s was refused: %s", mail.pk, mail.recipients, words)
    failed = {"state": State.FAILED, "next_try_at": None, "smtp_code": code, "last_error": words}
    _settle(mail, failed, also=lambda: _fall_back(mail, words))


def _fall_back(mail: OutboundMail, words: str) -> None:
    addresses = mail.subscription.fallback_addresses if mail.subscription else []
    if not addresses or mail.fallback_of_id or mail.kind == Kind.TEST:
        return
    now = timezone.now()
    note = f"This mail could not be delivered to {', '.join(mail.recipients)}: {words}"
    text, html = templates.noted(mail.text, mail.html, templates.cut(note, 2000))
    copied = ("kind", "topic", "severity", "application", "title", "status", "link", "subject")
    copy = OutboundMail.objects.create(
        **{name: getattr(mail, name) for name in (*copied, "csv", "csv_name", "subscription")},
        dedupe_key=f"fallback:{mail.pk.hex}",
        recipients=addresses,
        text=text,
        html=html,
        fallback_of=mail,
        alone=True,
        created_at=now,
        next_try_at=now,
        expires_at=now + (mail.expires_at - mail.created_at),
        withdrawn_at=mail.withdrawn_at,
        concluded_at=mail.concluded_at,
    )
    # Anyone who asks what became of a notice follows it to the digest that may still get through.
    OutboundMail.objects.filter(digest=mail).update(digest=copy)


def _postpone(mail: OutboundMail, words: str, code: int | None, *, alone: bool) -> None:
    """Have a mail tried again later, unless it was withdrawn meanwhile."""
    logger.warning("Mail %s waits for another try: %s", mail.pk, words)
    _put_back(
        mail,
        timezone.now() + _backoff(mail.attempts),
        alone=alone,
        attempts=mail.attempts,
        smtp_code=code,
        last_error=words,
    )


def _release(mails: Iterable[OutboundMail], words: str = "") -> None:
    """Give back mails that the relay has heard nothing of, as if nobody had claimed them."""
    for mail in mails:
        _put_back(
            mail,
            timezone.now(),
            alone=mail.alone,
            attempts=mail.attempts - 1,
            last_error=words or mail.last_error,
        )


def _put_back(mail: OutboundMail, due: datetime, *, alone: bool, **values: object) -> None:
    """Have a mail wait again; a digest that nobody can have got makes room for its notices."""
    if mail.kind == Kind.DIGEST and not alone:
        _persist(mail, lambda: _dissolve(mail, due, values))
    else:
        _settle(mail, {**_waiting_again(due), "alone": alone, **values})


def _waiting_again(due: datetime) -> dict[str, Case]:
    withdrawn = When(withdrawn_at__isnull=False, then=Value(State.WITHDRAWN))
    never = When(withdrawn_at__isnull=False, then=Value(None))
    return {
        "state": Case(withdrawn, default=Value(State.QUEUED)),
        "next_try_at": Case(never, default=Value(due), output_field=DateTimeField(null=True)),
    }


def _dissolve(mail: OutboundMail, due: datetime, values: dict[str, object]) -> None:
    with transaction.atomic():
        if not _mine(mail).exists():
            return
        OutboundMail.objects.filter(digest=mail).update(
            **_waiting_again(due), digest=None, gathered=True, **values
        )
        _mine(mail).delete()


def _mine(mail: OutboundMail) -> QuerySet[OutboundMail]:
    """Return the row of a claimed mail, as long as no other worker has claimed it since."""
    return OutboundMail.objects.filter(pk=mail.pk, state=State.SENDING, attempts=mail.attempts)


def _settle(
    mail: OutboundMail, became: Mapping[str, object], also: Callable[[], None] | None = None
) -> None:
    """Record what became of a claimed mail, and what follows from it in the same transaction."""
    values: dict[str, Any] = {"delivered": mail.delivered, "refused": mail.refused, **became}

    def write() -> None:
        with transaction.atomic():
            if not _mine(mail).update(**values):
                logger.warning("Mail %s was claimed again before it was marked", mail.pk)
            elif also:
                also()

    _persist(mail, write)


def _persist(mail: OutboundMail, write: Callable[[], None]) -> None:
    """Write against a database that is away for a moment.

    A mail that was sent and not marked would be sent again.
    """
    for pause in PAUSES:
        try:
            write()
        except OperationalError:
            logger.exception("What became of mail %s could not be recorded yet", mail.pk)
            connection.close()
            time.sleep(pause)
        else:
            return
    raise OperationalError(f"What became of mail {mail.pk} could not be recorded")


def _backoff(attempts: int) -> timedelta:
    """Return the time to the next try: up to twice as long each time, with full jitter."""
    longest = min(FIRST_RETRY * 2 ** min(attempts, 10), LONGEST_RETRY)
    seconds = random.uniform(LEAST_RETRY.total_seconds(), longest.total_seconds())  # noqa: S311
    return timedelta(seconds=seconds)
