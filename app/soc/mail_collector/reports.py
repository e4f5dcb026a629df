"""The report on each site's mail: written at the times of day that are set, in the site's time."""

import csv
import io
from collections.abc import Sequence
from datetime import datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from django.db import transaction
from django.db.models import Count, Max, Q

from soc.alerts.models import OPEN, Alert
from soc.common.times import local
from soc.core.links import absolute
from soc.core.severity import Severity
from soc.events.models import BotSeen, Site
from soc.mail_collector.collect import APPLICATION
from soc.mail_collector.models import (
    Mailbox,
    MailEvent,
    MailSettings,
    Route,
    SiteReport,
    times_of_day,
)
from soc.mail_collector.reader import KIND
from soc.notify import reports
from soc.notify.digest import harmless
from soc.notify.models import Subscription
from soc.notify.templates import Notice

LATEST = timedelta(hours=1)
"""A report that could not be written in time is not written later than this."""

MOST_NAMED = 20
DAY = timedelta(days=1)
COLUMNS = ("robot", "mailbox", "check", "passed", "failed", "last")


def send_due(now: datetime) -> int:
    """Write the reports that sites are due; return how many mails that makes.

    Each is claimed with its mails or not at all. After an outage a site gets its last report.
    """
    times = times_of_day(MailSettings.current().report_times)
    known = {report.site_id: report for report in SiteReport.objects.all()}
    mails = 0
    for site in Site.objects.order_by("pk"):
        due = last_moment(times, site.zone, now)
        report = known.get(site.pk)
        if report is None:
            # What lies before its registration is not reported.
            SiteReport.objects.get_or_create(site=site, defaults={"reported_until": due})
        elif report.reported_until < due:
            mails += _send(site, report, last_moment(times, site.zone, due), due, now)
    return mails


def last_moment(times: Sequence[time], zone: ZoneInfo, before: datetime) -> datetime:
    """Return the last moment before another one at which a clock of the zone shows one of times."""
    day = before.astimezone(zone).date() + DAY
    while True:
        moments = [datetime.combine(day, at, tzinfo=zone) for at in times]
        # Aware moments of one zone compare by their clocks, which a clock put back repeats.
        past = [moment for moment in moments if moment.timestamp() < before.timestamp()]
        if past:
            return max(past, key=datetime.timestamp)
        day -= DAY


def _send(site: Site, report: SiteReport, since: datetime, until: datetime, now: datetime) -> int:
    with transaction.atomic():
        mine = SiteReport.objects.filter(pk=report.pk, reported_until=report.reported_until)
        # The conditional update lets only one of two simultaneous callers have it.
        if not mine.update(reported_until=until) or now - until > LATEST:
            return 0
        notice = of(site, since, until)
        period = f"{APPLICATION}:{site.pk}:{until:%Y-%m-%d %H:%M}"
        return sum(
            reports.enqueue(subscription, notice, period)
            for subscription in Subscription.objects.filter(enabled=True)
            if subscription.wants(notice.severity, APPLICATION)
        )


# --- What stands in it --------------------------------------------------------------------------


def of(site: Site, since: datetime, until: datetime) -> Notice:
    """Return the report on a site's mail in a period; its severity is that of what is open."""
    rows = _checks(site, since, until)
    failed = sum(row.failed for row in rows)
    alerts = list(
        Alert.objects.filter(OPEN, rule__application=APPLICATION, site=site.name)
        .exclude(state__in=[Alert.State.PENDING, Alert.State.SUPPRESSED])
        .select_related("subject")
        .order_by("-severity", "opened_at")
    )
    worst = max((alert.severity for alert in alerts), default=Severity.INFO)
    return Notice(
        title=f"Mail at {site.name}: {failed} failed checks, {len(alerts)} open alerts",
        severity=Severity(worst),
        summary=f"From {_in_zone(since)} to {_in_zone(until)}.",
        facts=_facts(site, rows, alerts),
        link=absolute("mail-matrix"),
        application=APPLICATION,
        status="report",
        csv=_table(rows),
    )


class Checked(NamedTuple):
    """The checks of one kind that a robot made of one mailbox."""

    host: str
    mailbox: str
    kind: str
    passes: int
    failed: int
    last: datetime


def _checks(site: Site, since: datetime, until: datetime) -> list[Checked]:
    events = MailEvent.objects.filter(bot__site=site, at__gte=since, at__lt=until)
    names = ("bot__host", "mailbox", "kind")
    counted = (
        events.order_by(*names)
        .values(*names)
        .annotate(
            passes=Count("pk", filter=Q(passed=True)),
            failed=Count("pk", filter=Q(passed=False)),
            last=Max("at"),
        )
    )
    return [Checked(*row) for row in counted.values_list(*names, "passes", "failed", "last")]


def _facts(site: Site, rows: Sequence[Checked], alerts: Sequence[Alert]) -> dict[str, str]:
    facts = {
        f"{Severity(alert.severity).label}: {alert.subject.name}"[:100]: alert.summary
        for alert in alerts[:MOST_NAMED]
    }
    if len(alerts) > MOST_NAMED:
        facts["and"] = f"{len(alerts) - MOST_NAMED} more open alerts"
    facts["Checks"] = (
        f"{sum(row.passes for row in rows)} passed, {sum(row.failed for row in rows)} failed"
    )
    seen = BotSeen.objects.filter(kind=KIND, bot__site=site, bot__enabled=True)
    for one in seen.order_by("bot__host").select_related("bot")[:MOST_NAMED]:
        if one.heard_at:
            facts[f"Robot {one.bot.host}"] = f"last heard of at {local(one.heard_at)}"
    domains = {box.domain for box in Mailbox.objects.filter(bot__site=site, bot__enabled=True)}
    ends = Q(sender__in=domains) | Q(recipient__in=domains)
    for route in Route.objects.filter(ends)[:MOST_NAMED]:
        facts[f"Mail from {route}"] = _route(route)
    return facts


def _route(route: Route) -> str:
    verified = f"verified at {local(route.verified_at)}" if route.verified_at else "never verified"
    if not route.is_failing or route.failed_at is None:
        return verified
    return f"failed at {local(route.failed_at)}: {route.problem or 'no reason given'}; {verified}"


def _in_zone(moment: datetime) -> str:
    """Return a moment by the site's clock, in whose zone it is."""
    return f"{moment:%Y-%m-%d %H:%M %Z}"


def _table(rows: Sequence[Checked]) -> str:
    """Return the checks as CSV (RFC 4180), which a spreadsheet takes for text, not formulas."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for row in rows:
        names = (harmless(name) for name in (row.host, row.mailbox, row.kind))
        writer.writerow([*names, row.passes, row.failed, local(row.last)])
    return text.getvalue()
