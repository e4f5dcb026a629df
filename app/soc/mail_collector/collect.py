"""Takes in the checks that have come: signs of life, mailboxes, mails, pairs, failed checks.

Readers only store checks, in the transaction of their events; everything that needs a look at
what is known is done here, a part at a time, each in a transaction of its own.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Generic, TypeVar

from django.db import models, transaction

from soc.alerts import engine
from soc.alerts.conditions import Condition
from soc.common.deadlocks import again_after_deadlock
from soc.core.severity import Severity
from soc.events import silence
from soc.mail_collector import messages, pairing
from soc.mail_collector.models import (
    Delivery,
    Mailbox,
    MailEvent,
    MailSettings,
    Route,
    Watch,
)

APPLICATION = "mail_collector"
CHECK = "check"
"""The rule under which each check of each mailbox is reported."""

PART = 500
MOST_PARTS = 40
"""What is more waits for the next round: 20,000 checks take less than a minute."""

Kind = MailEvent.Kind
Key = TypeVar("Key")
Row = TypeVar("Row", bound=models.Model)

_PASSED_AT = {
    Kind.CONNECTION: "connected_at",
    Kind.SEND: "sent_at",
    Kind.RECEIVE: "received_at",
}
"""Where a mailbox notes that a check has passed."""


def take_new() -> int:
    """Take in what has come since the last time; return how many mails that makes."""
    mails = 0
    for _ in range(MOST_PARTS):
        taken, more = _take_part()
        mails += more
        if taken < PART:
            break
    return mails


@again_after_deadlock
def _take_part() -> tuple[int, int]:
    with transaction.atomic():
        # Its lock makes this the work of one worker at a time.
        settings, _ = MailSettings.objects.select_for_update().get_or_create(pk=1)
        new = MailEvent.objects.filter(taken=False).order_by("pk").select_related("bot__site")
        events = list(new[:PART])
        # Stale ones say nothing about the present, but where a mail has been they know.
        live = [event for event in events if event.bot.enabled and not event.stale]
        _note_signs_of_life(live, settings.bot_warning)
        _note_mailboxes(live, settings.mailbox_pattern)
        _note_routes(live, _pair(events))
        mails = sum(result.mails for result in engine.report(_checks(live)))
        MailEvent.objects.filter(pk__in=[event.pk for event in events]).update(taken=True)
    return len(events), mails


# --- What is known ------------------------------------------------------------------------------


def _note_signs_of_life(events: Iterable[MailEvent], patience: timedelta) -> None:
    rows = _Rows(Watch, {watch.bot_id: watch for watch in Watch.objects.all()})
    for event in sorted(events, key=attrgetter("at")):
        watch = rows.row(event.bot_id, partial(_new_watch, event))
        if event.at - watch.heard_at >= patience:
            watch.since = event.at
        watch.heard_at = max(watch.heard_at, event.at)
    rows.save("since", "heard_at")


def _new_watch(event: MailEvent) -> Watch:
    return Watch(bot_id=event.bot_id, since=event.at, heard_at=event.at)


def _note_mailboxes(events: Iterable[MailEvent], pattern: str) -> None:
    told = [event for event in events if event.mailbox]
    known = Mailbox.objects.filter(
        bot__in={event.bot_id for event in told}, address__in={event.mailbox for event in told}
    )
    rows = _Rows(Mailbox, {(one.bot_id, one.address): one for one in known})
    for event in told:
        box = rows.row((event.bot_id, event.mailbox), partial(_new_mailbox, event, pattern))
        if event.passed and (field := _PASSED_AT.get(Kind(event.kind))):
            setattr(box, field, _later(getattr(box, field), event.at))
    rows.save(*_PASSED_AT.values())


def _new_mailbox(event: MailEvent, pattern: str) -> Mailbox:
    mailbox = Mailbox(bot_id=event.bot_id, address=event.mailbox, since=event.at)
    mailbox.locate(pattern)
    return mailbox


def _pair(events: Iterable[MailEvent]) -> list[Delivery]:
    """Note what the events say of mails on their way; return the mails that they name."""
    new = pairing.merged(leg for event in events for leg in pairing.legs(event))
    known = Delivery.objects.filter(key__in=list(new))
    rows = _Rows(Delivery, {bytes(delivery.key): delivery for delivery in known})
    for key, leg in new.items():
        delivery = rows.row(key, partial(_new_delivery, leg))
        after = leg | _leg(delivery)
        delivery.sent_at, delivery.received_at = after.sent_at, after.received_at
        delivery.fresh_at = after.fresh_at
    rows.save("sent_at", "received_at", "fresh_at")
    return list(rows.touched.values())


def _new_delivery(leg: pairing.Leg) -> Delivery:
    return Delivery(key=leg.key, wm_id=leg.wm_id, sender=leg.sender, recipient=leg.recipient)


def _leg(known: Delivery) -> pairing.Leg:
    return pairing.Leg(
        bytes(known.key),
        known.wm_id,
        known.sender,
        known.recipient,
        sent_at=known.sent_at,
        received_at=known.received_at,
        fresh_at=known.fresh_at,
    )


def _note_routes(events: Iterable[MailEvent], deliveries: Iterable[Delivery]) -> None:
    rows = _Rows(Route, {(route.sender, route.recipient): route for route in Route.objects.all()})

    def between(sender: str, recipient: str) -> Route:
        ends = messages.domain(sender), messages.domain(recipient)
        return rows.row(ends, lambda: Route(sender=ends[0], recipient=ends[1]))

    for event in sorted(events, key=attrgetter("at")):
        if event.kind not in (Kind.SEND, Kind.RECEIVE) or not event.sender:
            continue
        for recipient in event.recipients:
            route = between(event.sender, recipient)
            if not event.passed:
                _fail(route, event)
                continue
            failed_at = route.failed_at or event.at
            if route.failed_check == event.check_name and event.at > failed_at:
                route.failed_check = route.problem = ""
            if event.kind == Kind.SEND:
                route.sent_at = _later(route.sent_at, event.at)
                route.first_sent_at = min(route.first_sent_at or event.at, event.at)
    for delivery in deliveries:
        if delivery.sent_at and delivery.fresh_at:
            route = between(delivery.sender, delivery.recipient)
            route.verified_at = _later(route.verified_at, delivery.fresh_at)
    rows.save(*("first_sent_at", "sent_at", "verified_at", "failed_at", "failed_check", "problem"))


def _fail(route: Route, event: MailEvent) -> None:
    if route.failed_at is None or event.at > route.failed_at:
        route.failed_at, route.problem = event.at, event.text
        route.failed_check = event.check_name


def _later(known: datetime | None, at: datetime) -> datetime:
    return at if known is None else max(known, at)


class _Rows(Generic[Key, Row]):
    """Rows of a model by what identifies them: known ones, and new ones as they are asked for."""

    def __init__(self, model: type[Row], known: dict[Key, Row]) -> None:
        self._model, self._known = model, known
        self._new: set[Key] = set()
        self.touched: dict[Key, Row] = {}

    def row(self, key: Key, make: Callable[[], Row]) -> Row:
        """Return the row that is about to be changed."""
        if key not in self._known:
            self._known[key] = make()
            self._new.add(key)
        row = self.touched[key] = self._known[key]
        return row

    def save(self, *fields: str) -> None:
        """Write the rows that were asked for; of known ones these fields."""
        new = [row for key, row in self.touched.items() if key in self._new]
        changed = [row for key, row in self.touched.items() if key not in self._new]
        self._model._default_manager.bulk_create(new)
        if changed:
            self._model._default_manager.bulk_update(changed, fields)


# --- Failed checks ------------------------------------------------------------------------------


def _checks(events: Iterable[MailEvent]) -> Iterator[Condition]:
    """Yield the outcome of each check; of those that go on passing, the first."""
    name_and_time = attrgetter("check_name", "at")
    for _, same in groupby(sorted(events, key=name_and_time), key=attrgetter("check_name")):
        passed_before = False
        for event in same:
            if not (event.passed and passed_before):
                yield _check(event)
            passed_before = event.passed


def _check(event: MailEvent) -> Condition:
    facts = {
        "Robot": event.bot.host,
        "From": event.sender,
        "To": ", ".join(event.recipients),
        "Witness number": event.wm_id,
    }
    return Condition(
        application=APPLICATION,
        rule=CHECK,
        subject=event.check_name,
        severity=Severity.OK if event.passed else Severity.CRITICAL,
        observed_at=event.at,
        summary=event.text or f"The check of {event.kind} failed.",
        facts={name: value for name, value in facts.items() if value},
        link=silence.page_of(event.bot_id),
        site=event.bot.site.name if event.bot.site else "",
    )
