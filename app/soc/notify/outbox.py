"""The outbox: every mail is a row first, claimed by one worker, sent, and marked."""

import logging
import random
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from itertools import islice, product

from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.db import OperationalError, connection, transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from soc.notify import smtp, templates
from soc.notify.models import CLAIM, OutboundMail, Subscription

BATCH = 5
"""Mails that one worker claims at a time: few, so that several workers share a storm."""

LOOKED_UP_AT_ONCE = 500
"""Dedupe keys in one query."""

WRITTEN_AT_ONCE = 50
"""New mails in one statement, which the database's ``max_allowed_packet`` bounds."""

PATIENCE = 30.0
"""Seconds after which a run claims no more mail; the queue's time limit is twice that."""

FIRST_RETRY = timedelta(seconds=30)
LONGEST_RETRY = timedelta(minutes=30)

PAUSES = (0.2, 1.0, 5.0, 10.0)
"""Seconds between the attempts to mark a mail."""

State = OutboundMail.State

logger = logging.getLogger(__name__)


def enqueue(notice: templates.Notice, key: str) -> int:
    """Write a mail per enabled subscription and return how many are new.

    ``key`` names the occasion: the same occasion is mailed to a subscription once, however often
    it is reported.
    """
    return enqueue_all({key: notice})


def enqueue_all(notices: Mapping[str, templates.Notice]) -> int:
    """Do as ``enqueue`` does for a few hundred notices by their occasions' keys.

    Mails that another process writes at the same moment are counted by both.
    """
    mails = [
        _mail(notices[key], subscription, dedupe_key)
        for dedupe_key, (key, subscription) in _missing(notices)
    ]
    OutboundMail.objects.bulk_create(mails, batch_size=WRITTEN_AT_ONCE, ignore_conflicts=True)
    return len(mails)


def unmailed(keys: Iterable[str]) -> set[str]:
    """Return the occasions that some enabled subscription has no mail about."""
    return {key for _, (key, _) in _missing(keys)}


def _missing(keys: Iterable[str]) -> Iterator[tuple[str, tuple[str, Subscription]]]:
    """Yield the dedupe key, the occasion and the subscription of every mail that is not there."""
    subscriptions = list(Subscription.objects.filter(enabled=True))
    pairs = product(keys, subscriptions)
    while chunk := {f"{key}:{to.pk}": (key, to) for key, to in islice(pairs, LOOKED_UP_AT_ONCE)}:
        mails = OutboundMail.objects.filter(dedupe_key__in=list(chunk))
        known = set(mails.values_list("dedupe_key", flat=True))
        yield from (
            (dedupe_key, pair) for dedupe_key, pair in chunk.items() if dedupe_key not in known
        )


def _mail(notice: templates.Notice, subscription: Subscription, dedupe_key: str) -> OutboundMail:
    rendered = _rendered(notice, subscription)
    return OutboundMail(
        subscription=subscription,
        dedupe_key=dedupe_key,
        recipients=subscription.addresses,
        subject=(subscription.subject_prefix + rendered.subject)[:255],
        text=rendered.text,
        html=rendered.html,
    )


def _rendered(notice: templates.Notice, subscription: Subscription) -> templates.Rendered:
    site = settings.SITE["SOC_SITE"]
    subject, text = subscription.subject_template, subscription.text_template
    try:
        return templates.render(notice, site=site, subject=subject, text=text)
    except SoftTimeLimitExceeded:
        # Not the template's doing, and the task has to end.
        raise
    # A template that passed with the sample may raise anything with this notice, which must
    # reach its readers all the same.
    except Exception:
        logger.exception("%s gets the default texts: its own cannot be rendered", subscription)
        return templates.render(notice, site=site)


def _due() -> QuerySet[OutboundMail]:
    return OutboundMail.objects.filter(next_try_at__lte=timezone.now())


def exceeds_a_batch() -> bool:
    """Tell whether more mail is due than one worker claims at a time."""
    return _due()[: BATCH + 1].count() > BATCH


def send_due() -> int:
    """Send the mail that is due, for ``PATIENCE`` at most, and return how many went out."""
    sent = 0
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and (claimed := _claim()):
        for position, mail in enumerate(claimed):
            try:
                refused = smtp.deliver(mail)
            except smtp.Refused as error:
                _fail(mail, error)
            except smtp.RelayDown as error:
                # The others of the batch would only wait for the same relay one by one.
                for waiting in claimed[position:]:
                    _postpone(waiting, error)
                return sent
            except smtp.Unavailable as error:
                _postpone(mail, error)
            else:
                _mark_sent(mail, refused)
                sent += 1
    return sent


def _claim() -> list[OutboundMail]:
    """Claim some due mails for this worker.

    Two workers never claim the same row: a row that another is claiming is skipped, not waited
    for. A claim whose worker died falls due again. The query reads one index in its order, so
    that it locks the rows it takes and no more.
    """
    now = timezone.now()
    skip_locked = connection.features.has_select_for_update_skip_locked
    with transaction.atomic():
        unlocked = _due().select_for_update(skip_locked=skip_locked)
        mails = list(unlocked.order_by("next_try_at")[:BATCH])
        OutboundMail.objects.filter(pk__in=[mail.pk for mail in mails]).update(
            state=State.SENDING,
            next_try_at=now + CLAIM,
            attempts=F("attempts") + 1,
        )
    return mails


def _mark_sent(mail: OutboundMail, refused: str) -> None:
    _settle(mail, State.SENT, sent_at=timezone.now(), smtp_code=250, last_error=refused)
    if refused:
        logger.warning("Mail %s went out, but not to all: %s", mail.pk, refused)


def _fail(mail: OutboundMail, error: smtp.Refused) -> None:
    _settle(mail, State.FAILED, smtp_code=error.code, last_error=str(error))
    logger.error("Mail %s to %s was refused: %s", mail.pk, mail.recipients, error)


def _postpone(mail: OutboundMail, error: smtp.Unavailable) -> None:
    _settle(
        mail,
        State.QUEUED,
        smtp_code=error.code,
        last_error=str(error),
        next_try_at=timezone.now() + _backoff(mail.attempts),
    )
    logger.warning("Mail %s waits for another try: %s", mail.pk, error)


def _settle(
    mail: OutboundMail,
    state: State,
    *,
    next_try_at: datetime | None = None,
    **values: object,
) -> None:
    """Record what became of a mail, against a database that is away for a moment.

    A mail that was sent and not marked would be sent again.
    """
    for pause in PAUSES:
        try:
            OutboundMail.objects.filter(pk=mail.pk).update(
                state=state, next_try_at=next_try_at, **values
            )
        except OperationalError:
            logger.exception("Mail %s is %s, but could not be marked yet", mail.pk, state)
            connection.close()
            time.sleep(pause)
        else:
            return
    raise OperationalError(f"Mail {mail.pk} is {state}, but could not be marked")


def _backoff(attempts: int) -> timedelta:
    """Return the time to the next try: doubled each time, with jitter against a stampede."""
    longest = min(FIRST_RETRY * 2 ** min(attempts, 10), LONGEST_RETRY)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 (not a secret)
