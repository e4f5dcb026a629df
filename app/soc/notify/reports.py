"""When the reports of subscriptions are due; what stands in them the applications say.

Each application may have a module ``report`` with a function ``sections`` of a subscription and a
period, which yields a `Section` for each mail, and one ``handover``, for whose shift begins. The
only clock is the subscription's, or that of its rota.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from soc.common import plugins
from soc.notify import outbox
from soc.notify.models import Subscription
from soc.notify.templates import Notice
from soc.oncall import plan
from soc.oncall.plan import HORIZON

MONDAY = 0


@dataclass(frozen=True)
class Period:
    """What a report covers: from a moment on, up to another, which is the next report's."""

    since: datetime
    until: datetime


@dataclass(frozen=True)
class Section:
    """One mail of a report; `key` sets it apart from the others of the same period."""

    key: str
    notice: Notice


def send_due(now: datetime) -> int:
    """Write the reports that are due; return how many mails that makes.

    Each is claimed with all its mails or not at all.
    """
    with transaction.atomic():
        return sum(_send(subscription, period(subscription, now)) for subscription in due(now))


def _send(subscription: Subscription, covered: Period) -> int:
    handover = subscription.report == Subscription.Report.HANDOVER
    reports = [
        getattr(module, "handover" if handover else "sections", None)
        for module in plugins.modules("report")
    ]
    return sum(
        outbox.enqueue_report(
            section.notice, f"report:{section.key}:{covered.until:%Y-%m-%d %H:%M}", subscription
        )
        for sections in reports
        if sections
        for section in sections(subscription, covered)
    )


def due(now: datetime) -> Iterator[Subscription]:
    """Yield the subscriptions whose report is due, each claimed for one report.

    They are as they were before: ``period`` returns what the report covers. The conditional
    update lets only one of two simultaneous callers have a subscription. Take and enqueue in one
    transaction: a worker that dies between the two then leaves the report due.
    After an outage a subscription gets one report, not one a day.
    """
    reported = Subscription.objects.filter(enabled=True).exclude(report=Subscription.Report.NONE)
    _follow_rotas(reported, now)
    for subscription in reported.filter(Q(next_report_at=None) | Q(next_report_at__lte=now)):
        planned = subscription.next_report_at
        values = {"next_report_at": first_after(subscription, now)}
        if planned:
            values["reported_until"] = period(subscription, now).until
        mine = Subscription.objects.filter(pk=subscription.pk, next_report_at=planned)
        if mine.update(**values) and planned:
            yield subscription


def _follow_rotas(reported: QuerySet[Subscription], now: datetime) -> None:
    """Plan the reports of shifts again: a rota may have been changed since they were planned."""
    ahead = reported.filter(report=Subscription.Report.HANDOVER, next_report_at__gt=now)
    for subscription in ahead:
        planned, begins = subscription.next_report_at, first_after(subscription, now)
        if planned != begins:
            mine = Subscription.objects.filter(pk=subscription.pk, next_report_at=planned)
            mine.update(next_report_at=begins)


def period(subscription: Subscription, now: datetime) -> Period:
    """Return what the report covers that a subscription is due: all that no report has covered.

    It lasts from one moment of a report to another, an hour more or less than a day where the
    clocks change.
    """
    planned = subscription.next_report_at or now
    since = subscription.reported_until
    if since is None:
        since = _last_until(subscription, planned - timedelta(microseconds=1))
    return Period(since, max(planned, _last_until(subscription, now)))


def first_after(subscription: Subscription, now: datetime) -> datetime | None:
    """Return the first moment after ``now`` at which a subscription's report is due, if it is.

    A weekly report is due on Monday, at each of its times.
    """
    if subscription.report == Subscription.Report.NONE:
        return None
    if subscription.report == Subscription.Report.HANDOVER:
        return min(_handovers(subscription, now, now + HORIZON), default=None)
    return next(moment for moment in _moments(subscription, now, 1) if _is_after(moment, now))


def _last_until(subscription: Subscription, now: datetime) -> datetime:
    """Return the last moment up to ``now`` at which a report is due."""
    if subscription.report == Subscription.Report.HANDOVER:
        return max(_handovers(subscription, now - HORIZON, now), default=now - HORIZON)
    return next(moment for moment in _moments(subscription, now, -1) if not _is_after(moment, now))


def _handovers(subscription: Subscription, since: datetime, until: datetime) -> list[datetime]:
    """Return when shifts of a subscription's rota begin, after a moment and up to another."""
    plans = plan.read(until, [subscription.rota_id]) if subscription.rota_id else []
    return [begins for one in plans for begins in one.handovers(since, until)]


def _moments(subscription: Subscription, now: datetime, step: int) -> Iterator[datetime]:
    """Yield the moments of reports from the day of ``now`` on, in steps of one day."""
    local = timezone.localtime(now)
    weekly = subscription.report == Subscription.Report.WEEKLY
    for days in count(0, step):
        day = local.date() + timedelta(days=days)
        if not weekly or day.weekday() == MONDAY:
            for at in subscription.report_times[::step]:
                yield datetime.combine(day, at, tzinfo=local.tzinfo)


def _is_after(moment: datetime, now: datetime) -> bool:
    # Aware moments of one zone compare by their clocks, which a clock put back repeats.
    return moment.timestamp() > now.timestamp()
