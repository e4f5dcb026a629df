"""When the reports of subscriptions are due; what stands in them is for others to say."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count

from django.db.models import Q
from django.utils import timezone

from soc.notify import outbox
from soc.notify.models import Subscription
from soc.notify.templates import Notice

MONDAY = 0


@dataclass(frozen=True)
class Period:
    """What a report covers: from a moment on, up to another, which is the next report's."""

    since: datetime
    until: datetime


def due(now: datetime) -> Iterator[Subscription]:
    """Yield the subscriptions whose report is due, each claimed for one report.

    They are as they were before: ``period`` returns what the report covers. The conditional
    update lets only one of two simultaneous callers have a subscription. Take and enqueue in one
    transaction: a worker that dies between the two then leaves the report due.
    After an outage a subscription gets one report, not one a day.
    """
    reported = Subscription.objects.filter(enabled=True).exclude(report=Subscription.Report.NONE)
    for subscription in reported.filter(Q(next_report_at=None) | Q(next_report_at__lte=now)):
        planned = subscription.next_report_at
        values = {"next_report_at": first_after(subscription, now)}
        if planned:
            values["reported_until"] = period(subscription, now).until
        mine = Subscription.objects.filter(pk=subscription.pk, next_report_at=planned)
        if mine.update(**values) and planned:
            yield subscription


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


def enqueue(subscription: Subscription, notice: Notice, period: str) -> int:
    """Write the report of a period, such as a date, once; return how many mails are new.

    Neither quiet hours nor digests hold it; it has 12 hours to get through.
    """
    return outbox.enqueue_report(notice, f"report:{period}", subscription)


def first_after(subscription: Subscription, now: datetime) -> datetime | None:
    """Return the first moment after ``now`` at which a subscription's report is due, if it is.

    A weekly report is due on Monday.
    """
    if subscription.report == Subscription.Report.NONE:
        return None
    return next(moment for moment in _moments(subscription, now, 1) if _is_after(moment, now))


def _last_until(subscription: Subscription, now: datetime) -> datetime:
    """Return the last moment up to ``now`` at which a report is due."""
    return next(moment for moment in _moments(subscription, now, -1) if not _is_after(moment, now))


def _moments(subscription: Subscription, now: datetime, step: int) -> Iterator[datetime]:
    """Yield the moments of reports from the day of ``now`` on, in steps of one day."""
    local = timezone.localtime(now)
    weekly = subscription.report == Subscription.Report.WEEKLY
    for days in count(0, step):
        day = local.date() + timedelta(days=days)
        if not weekly or day.weekday() == MONDAY:
            yield datetime.combine(day, subscription.report_at, tzinfo=local.tzinfo)


def _is_after(moment: datetime, now: datetime) -> bool:
    # Aware moments of one zone compare by their clocks, which a clock put back repeats.
    return moment.timestamp() > now.timestamp()
