"""The outbox: every mail is a row first, claimed by one worker, sent, and marked."""

import logging
import random
from collections.abc import Iterator
from datetime import timedelta

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from soc.notify import smtp, templates
from soc.notify.models import CLAIM, OutboundMail, Subscription

BATCH = 20
"""Mails that one worker claims at a time."""

FIRST_RETRY = timedelta(seconds=30)
LONGEST_RETRY = timedelta(minutes=30)

logger = logging.getLogger(__name__)


def enqueue(notice: templates.Notice, key: str) -> int:
    """Write a mail per enabled subscription and return how many are new.

    ``key`` names the occasion: the same occasion is mailed to a subscription once, however often
    it is reported.
    """
    created = 0
    for subscription in Subscription.objects.filter(enabled=True):
        dedupe_key = f"{key}:{subscription.pk}"
        if OutboundMail.objects.filter(dedupe_key=dedupe_key).exists():
            continue
        created += OutboundMail.objects.get_or_create(
            dedupe_key=dedupe_key, defaults=_mail(notice, subscription)
        )[1]
    return created


def _mail(notice: templates.Notice, subscription: Subscription) -> dict[str, object]:
    rendered = templates.render(
        notice,
        subject=subscription.subject_template,
        text=subscription.text_template,
        site=settings.SITE["SOC_SITE"],
    )
    return {
        "subscription": subscription,
        "recipients": subscription.addresses,
        "subject": (subscription.subject_prefix + rendered.subject)[:255],
        "text": rendered.text,
        "html": rendered.html,
    }


def send_due() -> int:
    """Send every mail that is due and return how many went out."""
    sent = 0
    while claimed := _claim():
        for mail in claimed:
            sent += _send(mail)
    return sent


def _claim() -> list[OutboundMail]:
    """Claim some due mails for this worker.

    Two workers never claim the same row: a row that another is claiming is skipped, not waited
    for. A claim whose worker died falls due again.
    """
    now = timezone.now()
    skip_locked = connection.features.has_select_for_update_skip_locked
    with transaction.atomic():
        due = OutboundMail.objects.select_for_update(skip_locked=skip_locked).filter(
            state__in=[OutboundMail.State.QUEUED, OutboundMail.State.SENDING],
            next_try_at__lte=now,
        )
        mails = list(due.order_by("next_try_at")[:BATCH])
        OutboundMail.objects.filter(pk__in=[mail.pk for mail in mails]).update(
            state=OutboundMail.State.SENDING,
            next_try_at=now + CLAIM,
            attempts=F("attempts") + 1,
        )
    return mails


def _send(mail: OutboundMail) -> bool:
    """Send one claimed mail and record what became of it."""
    try:
        smtp.deliver(mail)
    except smtp.Refused as error:
        _mark(mail, state=OutboundMail.State.FAILED, smtp_code=error.code, last_error=str(error))
        logger.error("Mail %s to %s was refused: %s", mail.pk, mail.recipients, error)
        return False
    except smtp.Unavailable as error:
        _mark(
            mail,
            state=OutboundMail.State.QUEUED,
            smtp_code=error.code,
            last_error=str(error),
            next_try_at=timezone.now() + _backoff(mail.attempts),
        )
        logger.warning("Mail %s waits for another try: %s", mail.pk, error)
        return False
    _mark(mail, state=OutboundMail.State.SENT, sent_at=timezone.now(), smtp_code=250, last_error="")
    return True


def _mark(mail: OutboundMail, **values: object) -> None:
    OutboundMail.objects.filter(pk=mail.pk).update(**values)


def _backoff(attempts: int) -> timedelta:
    """Return the time to the next try: doubled each time, with jitter against a stampede."""
    longest = min(FIRST_RETRY * 2 ** min(attempts, 10), LONGEST_RETRY)
    return longest * random.uniform(0.5, 1.0)


def waiting() -> Iterator[OutboundMail]:
    """Yield the mails that did not go out, those refused first."""
    unsent = OutboundMail.objects.exclude(state=OutboundMail.State.SENT)
    yield from unsent.order_by("state", "created_at")
