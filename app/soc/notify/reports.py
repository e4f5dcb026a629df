"""When the reports of subscriptions are due; what stands in them is for others to say."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from django.db.models import Q
from django.utils import timezone

from soc.notify import outbox
from soc.notify.models import Subscription
from soc.notify.templates import Notice

MONDAY = 0


def due(now: datetime) -> Iterator[Subscription]:
    """Yield the subscriptions whose report is due, each claimed for one report.

    Its ``next_report_at`` is still the moment that was due. The conditional update lets only one
    of two simultaneous callers have a subscription. Take and enqueue in one transaction: a worker
    that dies between the two then leaves the report due.
    After an outage a subscription gets one report, not one a day.
    """
    reported = Subscription.objects.filter(enabled=True).exclude(report=Subscription.Report.NONE)
    for subscription in reported.filter(Q(next_report_at=None) | Q(next_report_at__lte=now)):
        planned = subscription.next_report_at
        mine = Subscription.objects.filter(pk=subscription.pk, next_report_at=planned)
        if mine.update(next_report_at=first_after(subscription, now)) and planned:
            yield subscription


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
    weekly = subscription.report == Subscription.Report.WEEKLY
    local = timezone.localtime(now)
    day = local.date()
    while True:
        moment = datetime.combine(day, subscription.report_at, tzinfo=local.tzinfo)
        # Aware moments of one zone compare by their clocks, which a clock put back repeats.
        if moment.timestamp() > now.timestamp() and (day.weekday() == MONDAY or not weekly):
            return moment
        day += timedelta(days=1)
