"""The outbox: every mail is a row first; a worker delivers it later.

Anyone who writes here may be inside a transaction and publishes nothing: after the commit a worker
calls ``soc.notify.tasks.wake``. Rows are locked in the order of their keys, the relay's row before
them and by nobody here, so that writers and claiming workers cannot wait for each other in a ring.
"""

import hashlib
import logging
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice, product

from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.db import transaction
from django.db.models import Prefetch
from django.utils import timezone

from soc.common.deadlocks import again_after_deadlock
from soc.core.severity import Severity
from soc.notify import templates, tickets
from soc.notify.models import LIFE, LIFE_OF_A_REPORT, OutboundMail, Subscription
from soc.notify.recipients import Recipients

LOOKED_UP_AT_ONCE = 500
"""Dedupe keys in one query."""

WRITTEN_AT_ONCE = 50
"""New mails in one statement, which the database's ``max_allowed_packet`` bounds."""

LONGEST_KEY = 150
"""Characters of an occasion's key or a topic as it is kept; the subscription's own key follows."""

Kind = OutboundMail.Kind
State = OutboundMail.State

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Letter:
    """What the mails about one occasion have in common beside the notice."""

    topic: str = ""
    kind: str = Kind.NOTICE
    told: Mapping[int, int] = field(default_factory=dict)
    """The worst severity that each subscription has been notified of; only the last mail has it."""
    also: Mapping[int, list[str]] = field(default_factory=dict)
    """Who was on call when the subscriptions were notified, and hears of the end too."""


def enqueue(
    notice: templates.Notice,
    key: str,
    *,
    topic: str = "",
    to: Iterable[Subscription] | None = None,
) -> int:
    """Write a mail per enabled subscription that wants the notice; return how many are new.

    ``key`` names the occasion: the same occasion is mailed to a subscription once, however often
    it is reported. ``to`` names subscriptions that get it whatever they want else; a disabled one
    gets nothing in any case, and one that does not exist is skipped. Mails that another process
    writes at the same moment are counted by both.
    """
    letter = _Letter(topic=canonical(topic))
    if to is None:
        return _write({key: (notice, letter)}, None)
    return _write({key: (notice, letter)}, _existing(to))


def enqueue_to(
    subscriptions: list[Subscription], notice: templates.Notice, key: str, *, topic: str
) -> int:
    """Do as ``enqueue`` does for subscriptions that were read just now and want the notice."""
    return _write({key: (notice, _Letter(topic=canonical(topic)))}, subscriptions)


def enqueue_all(
    notices: Mapping[str, templates.Notice], *, topics: Mapping[str, str] | None = None
) -> int:
    """Do as ``enqueue`` does for a few hundred notices, and their topics, by occasions' keys."""
    topics = topics or {}
    return _write(
        {
            key: (notice, _Letter(topic=canonical(topics.get(key, ""))))
            for key, notice in notices.items()
        },
        None,
    )


@again_after_deadlock
def conclude(notice: templates.Notice, key: str, *, topic: str) -> int:
    """Withdraw what has not gone out about a topic; write a last mail to those who were notified.

    Returns the number of last mails.
    """
    now = timezone.now()
    with transaction.atomic():
        mails = _locked([canonical(topic)])
        told = _told(mails)
        _withdraw(mails, now)
        OutboundMail.objects.filter(pk__in=[mail.pk for mail in mails]).update(concluded_at=now)
        if not told:
            return 0
        letter = _Letter(topic=canonical(topic), told=told, also=_on_call_then(mails))
        subscriptions = Subscription.objects.filter(enabled=True, pk__in=told)
        return _write({key: (notice, letter)}, list(subscriptions))


def withdraw(topics: Iterable[str]) -> int:
    """Withdraw the mails about topics that have not gone out; return how many."""
    return _take_back({canonical(topic) for topic in topics})


def enqueue_report(notice: templates.Notice, key: str, subscription: Subscription) -> int:
    """Write a report to one subscription; quiet hours and digests do not hold it."""
    return _write({key: (notice, _Letter(kind=Kind.REPORT))}, [subscription])


def enqueue_test(subscription: Subscription, recipients: list[str]) -> OutboundMail:
    """Write a test mail with the sample notice, to recipients that need not be subscribed."""
    letter, key = _Letter(kind=Kind.TEST), f"test:{uuid.uuid4().hex}"
    sample, now = templates.cleaned(templates.SAMPLE), timezone.now()
    mail = _mail(sample, letter, subscription, recipients, key, now)
    note = f"This is a test of the subscription {subscription}: all is well."
    mail.text, mail.html = templates.noted(mail.text, mail.html, note)
    mail.subject = templates.line(f"TEST: {mail.subject}")
    mail.save(force_insert=True)
    return mail


def canonical(key: str) -> str:
    """Return a key or a topic as the database distinguishes it.

    MariaDB's collation knows neither case nor accents nor trailing blanks, and a column has an
    end: anything but a short plain key gets a digest of all of it.
    """
    if re.fullmatch(rf"[a-z0-9:._/-]{{0,{LONGEST_KEY}}}", key):
        return key
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"{templates.line(key, LONGEST_KEY - 33)}#{digest}"


# --- Writing ------------------------------------------------------------------------------------


def _existing(to: Iterable[Subscription]) -> list[Subscription]:
    wanted = {subscription.pk for subscription in to}
    found = list(Subscription.objects.filter(pk__in=wanted - {None}))
    if len(found) < len(wanted):
        logger.warning("%d of %d subscriptions do not exist", len(wanted) - len(found), len(wanted))
    return [subscription for subscription in found if subscription.enabled]


@again_after_deadlock
def _write(
    letters: Mapping[str, tuple[templates.Notice, _Letter]], to: list[Subscription] | None
) -> int:
    """Write the mails of some occasions that are missing, to those who want them or ``to``."""
    now = timezone.now()
    notices = {key: templates.cleaned(notice) for key, (notice, _) in letters.items()}
    if to is None:
        pairs = [
            (key, subscription)
            for key, subscription in product(
                notices, list(Subscription.objects.filter(enabled=True))
            )
            if subscription.wants(notices[key].severity, notices[key].application)
        ]
    else:
        pairs = list(product(notices, to))
    recipients = Recipients(now)
    mails = [
        _mail(notices[key], letters[key][1], subscription, names, dedupe_key, now)
        for dedupe_key, (key, subscription) in _missing(pairs)
        # Nobody is on call, and there is nobody else: who asks why finds it in the timeline.
        if (names := recipients.of(subscription, letters[key][1].also.get(subscription.pk, ())))
    ]
    mails.sort(key=lambda mail: mail.dedupe_key)
    with transaction.atomic():
        OutboundMail.objects.bulk_create(mails, batch_size=WRITTEN_AT_ONCE, ignore_conflicts=True)
    return len(mails)


def _missing(
    pairs: Iterable[tuple[str, Subscription]],
) -> Iterator[tuple[str, tuple[str, Subscription]]]:
    """Yield the dedupe key, the occasion and the subscription of every mail that is not there."""
    pairs = iter(pairs)
    while chunk := {
        f"{canonical(key)}:{to.pk}": (key, to) for key, to in islice(pairs, LOOKED_UP_AT_ONCE)
    }:
        mails = OutboundMail.objects.filter(dedupe_key__in=list(chunk))
        known = set(mails.values_list("dedupe_key", flat=True))
        yield from (
            (dedupe_key, pair) for dedupe_key, pair in chunk.items() if dedupe_key not in known
        )


def _mail(
    notice: templates.Notice,
    letter: _Letter,
    subscription: Subscription,
    to: list[str],
    dedupe_key: str,
    now: datetime,
) -> OutboundMail:
    mail = OutboundMail(
        subscription=subscription,
        dedupe_key=dedupe_key,
        kind=letter.kind,
        topic=letter.topic,
        severity=notice.severity,
        application=notice.application,
        title=notice.title,
        status=notice.status,
        link=notice.link,
        channel=subscription.channel,
        recipients=to,
        created_at=now,
        # The last mail of a topic is not itself withdrawn when the topic comes back and ends.
        concluded_at=now if letter.told else None,
    )
    if notice.acknowledgeable and subscription.acknowledge_links:
        mail.ticket = tickets.new_secret()
    rendered = _rendered(notice, subscription, mail.acknowledge)
    mail.subject = templates.line(subscription.subject_prefix + rendered.subject)
    mail.text, mail.html = rendered.text, rendered.html
    if subscription.csv and notice.csv:
        mail.csv, mail.csv_name = notice.csv, _file_name(letter, now)
    due = now
    if letter.kind == Kind.NOTICE:
        due, mail.gathered = _due(notice, letter, subscription, now)
    mail.next_try_at = due
    mail.expires_at = due + (LIFE_OF_A_REPORT if letter.kind == Kind.REPORT else LIFE)
    return mail


def _due(
    notice: templates.Notice, letter: _Letter, subscription: Subscription, now: datetime
) -> tuple[datetime, bool]:
    """Return when a notice is due, and whether it waits to be part of a digest.

    Who was woken hears of the end as well: the last mail counts as severe as what it ends.
    """
    severity = max(notice.severity, letter.told.get(subscription.pk, Severity.OK))
    if end := subscription.held_until(severity, now):
        return end, True
    if minutes := subscription.digest_minutes:
        return now + timedelta(minutes=minutes), True
    return now, False


def _file_name(letter: _Letter, now: datetime) -> str:
    return f"{letter.kind}-{timezone.localtime(now):%Y-%m-%d-%H%M}.csv"


def _rendered(
    notice: templates.Notice, subscription: Subscription, link: str
) -> templates.Rendered:
    site = settings.SITE["SOC_SITE"]
    subject, text = subscription.subject_template, subscription.text_template
    try:
        return templates.render(notice, site=site, subject=subject, text=text, acknowledge=link)
    except SoftTimeLimitExceeded:
        # Not the template's doing, and the task has to end.
        raise
    # A template that passed with the sample may raise anything with this notice, which must
    # reach its readers all the same.
    except Exception:
        logger.exception("%s gets the default texts: its own cannot be rendered", subscription)
        return templates.render(notice, site=site, acknowledge=link)


# --- Taking back --------------------------------------------------------------------------------


@again_after_deadlock
def _take_back(topics: set[str]) -> int:
    with transaction.atomic():
        return _withdraw(_locked(topics), timezone.now())


def _locked(topics: Iterable[str]) -> list[OutboundMail]:
    """Lock the mails about topics that are not over, in the order of their keys."""
    open_ones = OutboundMail.objects.filter(concluded_at__isnull=True)
    keys = open_ones.filter(topic__in=[topic for topic in topics if topic]).values_list("pk")
    rows = open_ones.filter(pk__in=[key for (key,) in keys]).order_by("pk").select_for_update()
    carriers = OutboundMail.objects.only("state", "delivered")
    envelope = ("subscription_id", "state", "severity", "delivered", "digest_id")
    return list(rows.only(*envelope).prefetch_related(Prefetch("digest", carriers)))


def _told(mails: Iterable[OutboundMail]) -> dict[int, int]:
    """Return the subscriptions that have been notified, with the worst severity they heard of."""
    told: dict[int, int] = {}
    for mail in mails:
        if mail.subscription_id is not None and _has_told(mail):
            worst = max(mail.severity, told.get(mail.subscription_id, Severity.OK))
            told[mail.subscription_id] = worst
    return told


def _on_call_then(mails: Iterable[OutboundMail]) -> dict[int, list[str]]:
    """Return the recipients that mails had, of the subscriptions that have a rota."""
    keys = [mail.pk for mail in mails if _has_told(mail)]
    of_rotas = OutboundMail.objects.filter(pk__in=keys, subscription__rota__isnull=False)
    then: dict[int, list[str]] = {}
    for key, names in of_rotas.values_list("subscription", "recipients"):
        then.setdefault(key, []).extend(names)
    return then


def _has_told(mail: OutboundMail) -> bool:
    if mail.state != State.DIGESTED:
        return mail.state in (State.SENDING, State.SENT) or bool(mail.delivered)
    # A digest exists only once a worker has it in hand: it told, or will if it can.
    carrier, hopeful = mail.digest, (State.QUEUED, State.SENDING, State.SENT)
    return carrier is not None and (carrier.state in hopeful or bool(carrier.delivered))


def _withdraw(mails: Iterable[OutboundMail], now: datetime) -> int:
    """Withdraw those of the locked mails that have not gone out.

    What a worker has in hand is marked, so that it is not tried again if it does not get through.
    """
    waiting = [mail.pk for mail in mails if mail.state == State.QUEUED]
    in_hand = [mail.pk for mail in mails if mail.state in (State.SENDING, State.DIGESTED)]
    OutboundMail.objects.filter(pk__in=in_hand).update(withdrawn_at=now)
    return OutboundMail.objects.filter(pk__in=waiting).update(
        state=State.WITHDRAWN, next_try_at=None, withdrawn_at=now
    )
