"""The report of a period on the mail of each site."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from django.db.models import Count, Max, Q

from soc.alerts.models import OPEN, Alert
from soc.common.tables import as_csv
from soc.common.times import local
from soc.core.links import absolute
from soc.core.severity import Severity
from soc.events.models import BotSeen, Site
from soc.mail_collector.collect import APPLICATION
from soc.mail_collector.models import Mailbox, MailEvent, Route
from soc.mail_collector.reader import KIND
from soc.notify.models import Subscription
from soc.notify.reports import Period, Section
from soc.notify.templates import Notice

MOST_NAMED = 20
COLUMNS = ("robot", "mailbox", "check", "passed", "failed", "last")


def sections(subscription: Subscription, period: Period) -> Iterator[Section]:
    """Yield a report for each site, if the subscription is about the robots' mail."""
    if subscription.is_about(APPLICATION):
        for site in Site.objects.order_by("pk"):
            notice = of(site, period.since, period.until)
            yield Section(f"{APPLICATION}:{site.pk}", notice)


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
        summary=f"From {local(since)} to {local(until)}.",
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


def _table(rows: Sequence[Checked]) -> str:
    return as_csv(COLUMNS, ((*row[:-1], local(row.last)) for row in rows))
