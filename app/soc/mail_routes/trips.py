"""Round trips: a step now, the next one later. No worker waits for a mail.

Delivery of tasks is at-least-once, so a step claims its trip first. What a look finds is recorded
before it is deleted: a worker that dies in between leaves a mail that the next look deletes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone

from soc.alerts.spans import in_words
from soc.common import due
from soc.core.sealed import SealProblem
from soc.core.severity import Severity
from soc.mail_routes import accounts, conditions, marks
from soc.mail_routes.conditions import Findings
from soc.mail_routes.ends import EndFault, Fault, LinkSecurity, MailEnd, Stopwatch
from soc.mail_routes.models import MailAccount, MailRoute, RoundTrip

if TYPE_CHECKING:
    from soc.mail_routes.mailbox import FoundMail, OpenMailbox

CLAIM = timedelta(seconds=120)
"""How long a step may take; a trip whose step was lost goes on after it."""

OVERDUE = timedelta(seconds=30)
"""How late a step is before it counts as lost: the broker was away, or emptied."""

EARLY = timedelta(seconds=1)
"""What a delayed task may come too early by: brokers count whole seconds."""

MOST_STARTED = 200

FIRST_LOOK = 2.0
LONGEST_PAUSE = 60.0
"""Seconds between two looks: half of what has passed already, within these bounds."""

State = RoundTrip.State
Outcome = RoundTrip.Outcome

_WELL = (Severity.OK, "")
_OUTCOMES = {
    Fault.UNREACHABLE: Outcome.UNREACHABLE,
    Fault.CERTIFICATE: Outcome.CERTIFICATE,
    Fault.LOGIN: Outcome.LOGIN,
    Fault.REFUSED: Outcome.REFUSED,
    Fault.DEFERRED: Outcome.REFUSED,
    Fault.FULL: Outcome.FULL,
}
_RULES = {
    Fault.UNREACHABLE: conditions.SUBMISSION,
    Fault.CERTIFICATE: conditions.CERTIFICATE,
    Fault.LOGIN: conditions.LOGIN,
    Fault.REFUSED: conditions.REFUSED,
    Fault.DEFERRED: conditions.REFUSED,
    Fault.FULL: conditions.FULL,
}
"""By what is wrong with a submission."""


class Step(NamedTuple):
    """What a step has led to: the seconds until the next one, None at the end, and new mails."""

    pause: float | None
    mails: int = 0


# --- Which are due ------------------------------------------------------------------------------


def start_due() -> list[int]:
    """Begin the trips of routes that are due; return the keys of trips whose step is due now."""
    now = timezone.now()
    watched = MailRoute.objects.filter(enabled=True)
    due.recall(watched, "next_run_at", due.minutes("interval_minutes"), now)
    going_on = RoundTrip.objects.exclude(state=State.DONE)
    due.recall(going_on, "next_step_at", CLAIM, now)
    ready = watched.filter(~Exists(going_on.filter(route=OuterRef("pk"))), next_run_at__lte=now)
    can_skip = connection.features.has_select_for_update_skip_locked
    with transaction.atomic():
        locked = ready.select_for_update(skip_locked=can_skip).order_by("next_run_at")
        routes = list(locked[:MOST_STARTED])
        for route in routes:
            route.next_run_at = route.slot_after(now)
        MailRoute.objects.bulk_update(routes, ["next_run_at"])
        started = [RoundTrip(route=route, started_at=now, next_step_at=now) for route in routes]
        RoundTrip.objects.bulk_create(started)
        new = going_on.filter(mark__in=[trip.mark for trip in started])
        keys = list(new.values_list("pk", flat=True))
    lost = going_on.filter(next_step_at__lte=now - OVERDUE).exclude(pk__in=keys)
    return keys + list(lost.values_list("pk", flat=True)[:MOST_STARTED])


def check_now(routes: Sequence[int]) -> int:
    """Make routes due, and their trips that are under way; return how many routes."""
    now = timezone.now()
    # Overdue, so that the next round takes them.
    going_on = RoundTrip.objects.filter(route__in=routes).exclude(state=State.DONE)
    going_on.update(next_step_at=now - OVERDUE)
    return MailRoute.objects.filter(pk__in=routes, enabled=True).update(next_run_at=now)


def step(key: int) -> Step:
    """Take a trip one step further; twice at once, or once more at its end, does no harm."""
    trip = _claim(key, timezone.now())
    if trip is None:
        return Step(None)
    if not trip.route.enabled:
        return _record(trip, {}, outcome=Outcome.ABANDONED)
    if trip.state == State.SUBMITTING:
        return _submit(trip)
    return _look(trip)


def _claim(key: int, now: datetime) -> RoundTrip | None:
    ready = RoundTrip.objects.filter(pk=key, next_step_at__lte=now + EARLY)
    if not ready.exclude(state=State.DONE).update(next_step_at=now + CLAIM):
        return None
    related = ("route__smtp_account__authority", "route__imap_account__authority")
    authorities = ("route__smtp_authority", "route__imap_authority")
    return RoundTrip.objects.select_related(*related, *authorities).get(pk=key)


# --- Submission ---------------------------------------------------------------------------------


def _submit(trip: RoundTrip) -> Step:
    from soc.mail_routes import submission

    route, account = trip.route, trip.route.smtp_account
    watch = Stopwatch()
    end = smtp_end(route)
    try:
        end = _with_login(end, account)
        mail = marks.make(
            sender=route.sender,
            recipient=route.recipient,
            site=settings.SITE["SOC_SITE"],
            token=route.token,
            mark=trip.mark,
            now=timezone.now(),
        )
        submission.submit(end, mail, watch)
    except EndFault as fault:
        _note_phases(trip, watch)
        _note_login(account, end, fault)
        return _not_submitted(trip, fault)
    _note_phases(trip, watch)
    accounts.note_success(account, end)
    trip.state, trip.sent_at = State.WAITING, timezone.now()
    trip.detail = ""
    taken = {conditions.SUBMISSION: _WELL, conditions.REFUSED: _WELL}
    return _record(trip, taken, pause=FIRST_LOOK)


def _not_submitted(trip: RoundTrip, fault: EndFault) -> Step:
    tried_before, words = bool(trip.detail), str(fault)
    trip.detail = words
    waited = timezone.now() - trip.started_at
    if fault.fault == Fault.UNREACHABLE and not tried_before:
        down = {conditions.SUBMISSION: (Severity.CRITICAL, words)}
        return _record(trip, down, pause=LONGEST_PAUSE)
    if fault.fault == Fault.DEFERRED and waited < _lost_after(trip.route):
        late = waited > _late_after(trip.route)
        found = {conditions.DELIVERY: (Severity.WARNING, words)} if late else {}
        return _record(trip, found, pause=_pause(waited))
    rule = _RULES[fault.fault]
    found = {rule: (Severity.CRITICAL, words)}
    return _record(trip, found, outcome=_OUTCOMES[fault.fault])


# --- The mailbox --------------------------------------------------------------------------------


def _look(trip: RoundTrip) -> Step:
    from soc.mail_routes import mailbox

    route, account = trip.route, trip.route.imap_account
    end = imap_end(route)
    try:
        end = _with_login(end, account)
        with mailbox.opened(end) as box:
            accounts.note_success(account, end)
            return _take(trip, box)
    except EndFault as fault:
        _note_login(account, end, fault)
        return _unread(trip, fault)


def _take(trip: RoundTrip, box: OpenMailbox) -> Step:
    route = trip.route
    found = box.find(route.token, route.inbox, route.spam_folder)
    read = dict.fromkeys((conditions.MAILBOX, conditions.LOGIN, conditions.CERTIFICATE), _WELL)
    mine = next((mail for mail in found if mail.mark == trip.mark), None)
    if mine is not None:
        step = _arrived(trip, mine, read)
    elif full := box.full():
        trip.detail = f"The mailbox is full ({full}): {route.recipient} gets no mail."
        read[conditions.FULL] = (Severity.CRITICAL, trip.detail)
        step = _record(trip, read, outcome=Outcome.FULL)
    else:
        step = _missing(trip, read)
    for mail in found:
        _note_straggler(mail)
    # After it was recorded.
    box.delete(found)
    return step


def _arrived(trip: RoundTrip, mail: FoundMail, read: Findings) -> Step:
    now = timezone.now()
    sent_at = trip.sent_at or trip.started_at
    # Mailboxes keep whole seconds, by a clock of their own.
    trip.arrived_at = min(max(mail.arrived_at, sent_at), now)
    trip.found_at, trip.folder = now, mail.folder
    trip.hops = _hops(mail, sent_at)
    trip.detail = ""
    outcome, took = Outcome.ON_TIME, trip.arrived_at - sent_at
    delivery = spam = _WELL
    if mail.is_spam:
        outcome = Outcome.SPAM
        trip.detail = f"It lies in {mail.folder}, where nobody looks for it."
        spam = (Severity.WARNING, trip.detail)
    if took > _late_after(trip.route):
        outcome = Outcome.LATE
        trip.detail = f"It took {in_words(took)}, more than {trip.route.late_after} s."
        delivery = (Severity.WARNING, trip.detail)
    found = {conditions.DELIVERY: delivery, conditions.SPAM: spam, conditions.FULL: _WELL}
    return _record(trip, {**read, **found}, outcome=outcome)


def _note_straggler(mail: FoundMail) -> None:
    """Note when a mail came whose trip has given it up; what that reported stays."""
    given_up = RoundTrip.objects.filter(mark=mail.mark, state=State.DONE, arrived_at=None)
    given_up.update(arrived_at=mail.arrived_at, found_at=timezone.now(), folder=mail.folder)


def _missing(trip: RoundTrip, read: Findings) -> Step:
    waited = timezone.now() - (trip.sent_at or trip.started_at)
    words = f"It has not arrived for {in_words(waited)}."
    if waited >= _lost_after(trip.route):
        trip.detail = f"{words} It counts as lost."
        lost = {conditions.DELIVERY: (Severity.CRITICAL, trip.detail)}
        return _record(trip, {**read, **lost}, outcome=Outcome.LOST)
    trip.detail, late = "", {}
    if waited > _late_after(trip.route):
        trip.detail = words
        late = {conditions.DELIVERY: (Severity.WARNING, words)}
    return _record(trip, {**read, **late}, pause=_pause(waited))


def _unread(trip: RoundTrip, fault: EndFault) -> Step:
    trip.detail = words = str(fault)
    waited = timezone.now() - (trip.sent_at or trip.started_at)
    rule = conditions.MAILBOX if fault.fault == Fault.UNREACHABLE else _RULES[fault.fault]
    found = {rule: (Severity.CRITICAL, words)}
    if waited >= _lost_after(trip.route):
        return _record(trip, found, outcome=Outcome.UNREAD)
    return _record(trip, found, pause=LONGEST_PAUSE)


def _hops(mail: FoundMail, sent_at: datetime) -> list[dict[str, object]]:
    """Return the servers of a mail with the seconds to each, by their own clocks."""
    before, made = sent_at, []
    for hop in mail.hops:
        made.append({"by": hop.by, "seconds": round((hop.at - before).total_seconds(), 1)})
        before = hop.at
    return made


# --- Both ends ----------------------------------------------------------------------------------


def smtp_end(route: MailRoute) -> MailEnd:
    """Return where the mail of a route is submitted, without the login."""
    authority = route.smtp_authority.pem if route.smtp_authority else ""
    return MailEnd(route.smtp_host, route.smtp_port, LinkSecurity(route.smtp_security), authority)


def imap_end(route: MailRoute) -> MailEnd:
    """Return where the mail of a route is looked for, without the login."""
    authority = route.imap_authority.pem if route.imap_authority else ""
    return MailEnd(route.imap_host, route.imap_port, LinkSecurity(route.imap_security), authority)


def _with_login(end: MailEnd, account: MailAccount | None) -> MailEnd:
    if accounts.is_held(account):
        words = f"The account {account} was refused and is not tried any more"
        reason = account.refusal if account else ""
        raise EndFault(Fault.LOGIN, f"{words}, so that it is not locked. {reason}")
    try:
        return replace(end, login=accounts.login_of(account))
    except SealProblem as problem:
        raise EndFault(Fault.LOGIN, str(problem)) from problem


def _note_login(account: MailAccount | None, end: MailEnd, fault: EndFault) -> None:
    if fault.fault == Fault.LOGIN and end.login is not None:
        accounts.note_refusal(account, end, str(fault))


def _note_phases(trip: RoundTrip, watch: Stopwatch) -> None:
    for phase, spent in watch.spent.items():
        setattr(trip, f"{phase}_ms", round(spent, 1))


def _late_after(route: MailRoute) -> timedelta:
    return timedelta(seconds=route.late_after)


def _lost_after(route: MailRoute) -> timedelta:
    return timedelta(minutes=route.lost_after)


def _pause(waited: timedelta) -> float:
    return min(LONGEST_PAUSE, max(FIRST_LOOK, waited.total_seconds() / 2))


def _record(
    trip: RoundTrip,
    findings: Findings,
    *,
    pause: float | None = None,
    outcome: Outcome | None = None,
) -> Step:
    """Write what a step has led to, and report it."""
    now = timezone.now()
    if outcome is not None:
        trip.state, trip.outcome = State.DONE, outcome
    trip.next_step_at = now + timedelta(seconds=pause or 0)
    with transaction.atomic():
        trip.save()
        mails = conditions.report(trip, findings, now) if trip.route.enabled else 0
    return Step(pause, mails)
