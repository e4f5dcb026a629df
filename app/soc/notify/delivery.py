"""Delivery: due mails are claimed by one worker, sent, and marked.

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

from celery.exceptions import SoftTimeLimitExceeded
from django.db import OperationalError, connection, transaction
from django.db.models import Case, DateTimeField, F, Q, QuerySet, Value, When
from django.utils import timezone

from soc.common.batches import batched
from soc.common.deadlocks import again_after_deadlock
from soc.notify import digest, relay, smtp, templates
from soc.notify.models import CLAIM, LIFE, OutboundMail, Relay, Subscription, words_of

BATCH = 5
"""Mails that one worker claims at a time: few, so that several workers share a storm."""

PATIENCE = 30.0
"""Seconds after which a run claims no more mail; the queue's time limit is twice that."""

LEAST_RETRY = timedelta(seconds=5)
FIRST_RETRY = timedelta(seconds=30)
LONGEST_RETRY = timedelta(minutes=30)

PAUSES = (0.2, 1.0, 5.0, 10.0)
"""Seconds between the attempts to mark a mail."""

CHANGED_AT_ONCE = 20
"""Rows in one statement: few, or the database reads the whole table for them and waits for the rows
of others on its way."""

Kind = OutboundMail.Kind
State = OutboundMail.State

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Claim:
    """What a worker may do next: send mails, wait for the pace, probe the relay, or nothing."""

    mails: Sequence[OutboundMail] = ()
    wait: float = 0.0
    probe: bool = False


def exceeds_a_batch() -> bool:
    """Tell whether there is more to send now than one worker claims at a time."""
    return _due(timezone.now())[: BATCH + 1].count() > BATCH and not relay.is_down()


def send_due() -> int:
    """Send the mail that is due, for ``PATIENCE`` at most, and return how many went out."""
    tidy()
    sent = 0
    end = time.monotonic() + PATIENCE
    while (left := end - time.monotonic()) > 0:
        began = timezone.now()
        claim = _claim()
        if claim.probe:
            if not _probe(began):
                break
        elif claim.wait:
            time.sleep(min(claim.wait, left))
        elif claim.mails:
            sent += _send(claim.mails, began, end)
        else:
            break
    return sent


def _probe(began: datetime) -> bool:
    try:
        smtp.probe(_addresses())
    except smtp.RelayDown as error:
        relay.mark_down(error, began)
        return False
    relay.mark_up()
    return True


def _addresses() -> list[str]:
    """Return whom the site mails to, one of each domain before the others."""
    subscriptions = Subscription.objects.filter(enabled=True).order_by("pk")
    addresses = [
        address
        for subscription in subscriptions
        for address in (*subscription.addresses, *subscription.fallback_addresses)
    ]
    of_domains = {address.rpartition("@")[2].lower(): address for address in reversed(addresses)}
    return list(dict.fromkeys((*of_domains.values(), *addresses)))


# --- What needs no relay ------------------------------------------------------------------------


def tidy() -> None:
    """Hold what quiet hours hold, take back what is switched off, and let the rest expire."""
    now = timezone.now()
    for subscription in Subscription.objects.all():
        waiting = _waiting(subscription)
        if not subscription.enabled:
            _change(waiting, state=State.WITHDRAWN, next_try_at=None, withdrawn_at=now)
        elif end := subscription.quiet_end(now):
            # Last mails have been judged by what they end.
            open_ones = waiting.filter(_gatherable(), concluded_at__isnull=True)
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
    row = Relay.objects.filter(down_since__isnull=False).first()
    reason = row.last_error if row else "No worker came to it in time."
    blank = _change(
        late.filter(last_error=""), state=State.EXPIRED, next_try_at=None, last_error=reason
    )
    count = blank + _change(late, state=State.EXPIRED, next_try_at=None)
    if count:
        logger.error("%d mails were not sent in their time: %s", count, reason)


def _change(rows: QuerySet[OutboundMail], **values: object) -> int:
    """Update rows in short transactions, except those that somebody else has locked."""
    keys = list(rows.order_by("pk").values_list("pk", flat=True))
    parts = batched(keys, CHANGED_AT_ONCE)
    return sum(_change_some(rows.filter(pk__in=part), values) for part in parts)


@again_after_deadlock
def _change_some(rows: QuerySet[OutboundMail], values: dict[str, object]) -> int:
    with transaction.atomic():
        mine = list(_unlocked(rows).order_by("pk").values_list("pk", flat=True))
        return OutboundMail.objects.filter(pk__in=mine).update(**values)


# --- Claiming -----------------------------------------------------------------------------------


def _due(now: datetime) -> QuerySet[OutboundMail]:
    return OutboundMail.objects.filter(
        next_try_at__lte=now, expires_at__gt=now, withdrawn_at__isnull=True
    )


def _gatherable() -> Q:
    """Return the condition of notices that nobody can have got yet, and that a digest may hold."""
    return Q(kind=Kind.NOTICE, state=State.QUEUED, alone=False)


def _unlocked(rows: QuerySet[OutboundMail]) -> QuerySet[OutboundMail]:
    return rows.select_for_update(skip_locked=connection.features.has_select_for_update_skip_locked)


@again_after_deadlock
def _claim() -> Claim:
    """Claim some due mails for this worker, within the site's pace.

    A claim whose worker died falls due again. The query reads one index in its order, so that it
    locks the rows it takes and no more.
    """
    now = timezone.now()
    with transaction.atomic():
        row = relay.locked()
        if row.down_since is not None:
            return Claim(probe=relay.take_probe(row, now))
        relay.refill(row, now)
        if row.tokens < 1:
            due = _due(now).exists()
            return Claim(wait=relay.pace().wait(row.tokens) if due else 0.0)
        heads = _unlocked(_due(now)).order_by("next_try_at")[: min(BATCH, int(row.tokens))]
        mails = _bundled(list(heads), row, now)
        row.tokens -= len(mails)
        row.save(update_fields=["tokens", "tokens_at"])
        for mail in mails:
            mail.attempts += 1
        OutboundMail.objects.filter(pk__in=[mail.pk for mail in mails]).update(
            state=State.SENDING,
            next_try_at=now + CLAIM,
            attempts=F("attempts") + 1,
            alone=True,
        )
    return Claim(mails)


def _waiting(subscription: Subscription) -> QuerySet[OutboundMail]:
    # Only what is not done with has a next try, which is what the index is for.
    return OutboundMail.objects.filter(
        subscription=subscription, next_try_at__isnull=False, state=State.QUEUED
    )


def _bundled(heads: Iterable[OutboundMail], row: Relay, now: datetime) -> list[OutboundMail]:
    """Return mails to send: a digest in place of the notices of a subscription that need one."""
    heads = list(heads)
    owners = {mail.subscription_id for mail in heads if mail.state == State.QUEUED}
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
    waiting = _waiting(subscription).filter(_gatherable(), expires_at__gt=now)
    due = Q(next_try_at__lte=now)
    gathered = Q(gathered=True)
    if row.up_since is not None:
        gathered |= Q(created_at__lte=row.up_since)
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
    members = list(_unlocked(waiting.filter(wanted)).order_by("pk").only(*digest.NEEDED))
    return _compose(subscription, members, now) if len(members) > 1 else None


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
        recipients=subscription.addresses,
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
    for part in batched([member.pk for member in members], CHANGED_AT_ONCE):
        OutboundMail.objects.filter(pk__in=part).update(
            state=State.DIGESTED, digest=mail, next_try_at=None
        )
    return mail


# --- Sending ------------------------------------------------------------------------------------


def _send(mails: Sequence[OutboundMail], began: datetime, end: float) -> int:
    """Send claimed mails until ``end`` on the monotonic clock; return how many went out."""
    sent = 0
    for position, mail in enumerate(mails):
        if position and time.monotonic() > end:
            _release(mails[position:])
            break
        try:
            replies = smtp.deliver(mail, _addresses) if mail.outstanding else {}
        except smtp.RelayDown as error:
            relay.mark_down(error, began)
            _release(mails[position:], str(error))
            break
        except smtp.ConnectionLost as error:
            _postpone(mail, str(error), None, alone=True)
        except SoftTimeLimitExceeded:
            smtp.close()
            _postpone(mail, "The relay took too long over it.", None, alone=True)
            _release(mails[position + 1 :])
            raise
        else:
            sent += _record(mail, replies)
    return sent


def _record(mail: OutboundMail, replies: Mapping[str, smtp.Reply]) -> bool:
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
        _mark_sent(mail)
        return True
    _fail(mail, next((reply.code or None for reply in replies.values()), None))
    return False


def _words(mail: OutboundMail, replies: Mapping[str, str]) -> str:
    """Return the relay's words on recipients, or once if it said the same of all."""
    distinct = set(replies.values())
    if len(distinct) == 1 and len(replies) == len(mail.recipients):
        return distinct.pop()
    return words_of(replies)


def _mark_sent(mail: OutboundMail) -> None:
    refused = words_of(mail.refused)
    _settle(
        mail,
        state=State.SENT,
        next_try_at=None,
        sent_at=timezone.now(),
        smtp_code=250,
        last_error=refused,
    )
    if refused:
        logger.warning("Mail %s went out, but not to all: %s", mail.pk, refused)


def _fail(mail: OutboundMail, code: int | None) -> None:
    """Give a mail up that is refused for all; its fallback recipients, if any, get a copy."""
    words = _words(mail, mail.refused) or "It has no recipients."
    logger.error("Mail %s to %s was refused: %s", mail.pk, mail.recipients, words)
    _settle(
        mail,
        also=lambda: _fall_back(mail, words),
        state=State.FAILED,
        next_try_at=None,
        smtp_code=code,
        last_error=words,
    )


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
    # Whoever asks what became of a notice follows it to the digest that may still get through.
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
        _settle(mail, **_waiting_again(due), alone=alone, **values)


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
    mail: OutboundMail, *, also: Callable[[], None] | None = None, **values: object
) -> None:
    """Record what became of a claimed mail, and what follows from it in the same transaction."""
    values = {"delivered": mail.delivered, "refused": mail.refused, **values}

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
