"""The report of a period: what went wrong, what is still wrong, in words and as a table."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from django.db.models import Q, QuerySet

from soc.alerts import shifts
from soc.alerts.conditions import one_line
from soc.alerts.models import OPEN, Alert
from soc.common.tables import as_csv
from soc.common.times import local
from soc.core.links import absolute
from soc.core.severity import Severity
from soc.notify.models import Subscription
from soc.notify.reports import Period, Section
from soc.notify.templates import Notice
from soc.provision.environment import split

MOST_ROWS = 10_000
"""Alerts in the table of one report."""

MOST_NAMED = 20
LONGEST_NAME = 100
COLUMNS = (
    *("application", "rule", "site", "subject", "severity", "state", "opened", "resolved"),
    *("acknowledged_by", "reports", "summary"),
)


def sections(subscription: Subscription, period: Period) -> Iterator[Section]:
    """Yield the report of a subscription on a period, if there is something to say."""
    notice = of(subscription, period.since, period.until)
    if notice is None and subscription.report_when_empty:
        notice = nothing(period.since, period.until)
    if notice:
        yield Section("alerts", notice)


def handover(subscription: Subscription, period: Period) -> Iterator[Section]:
    """Yield the report for whose shift begins: what the last one was like, and what is open."""
    applications = split(subscription.applications)
    shift = shifts.read(period.since, period.until, subscription.minimum_severity, applications)
    yield Section("handover", shifts.notice(shift))


def of(subscription: Subscription, since: datetime, until: datetime) -> Notice | None:
    """Return a subscription's report on a period, or None if there was nothing to report."""
    rows = list(_alerts(subscription, since, until)[:MOST_ROWS])
    if not rows:
        return None
    for alert in rows:
        _put_back(alert, until)
    still_open = [alert for alert in rows if alert.resolved_at is None]
    opened = sum(since <= alert.opened_at < until for alert in rows)
    resolved = len(rows) - len(still_open)
    worst = max((alert.severity for alert in still_open), default=Severity.INFO)
    return Notice(
        title=f"Alerts: {opened} opened, {resolved} resolved, {len(still_open)} open",
        severity=Severity(worst),
        summary=f"From {local(since)} to {local(until)}.",
        facts=_facts(rows, still_open),
        link=absolute("alerts"),
        status="report",
        csv=_table(rows),
    )


def _put_back(alert: Alert, until: datetime) -> None:
    """Show an alert as it was at a moment: what ended since is of the next report."""
    if alert.resolved_at and alert.resolved_at >= until:
        alert.resolved_at = None
        was_known = alert.acknowledged_at and alert.acknowledged_at < until
        alert.state = Alert.State.ACKNOWLEDGED if was_known else Alert.State.FIRING


def nothing(since: datetime, until: datetime) -> Notice:
    """Return the report on a period in which nothing happened."""
    return Notice(
        title="no alerts",
        severity=Severity.INFO,
        summary=f"Nothing happened from {local(since)} to {local(until)}.",
        facts={},
        link=absolute("alerts"),
        status="report",
    )


def _alerts(subscription: Subscription, since: datetime, until: datetime) -> QuerySet[Alert]:
    alerts = Alert.objects.filter(
        OPEN | Q(resolved_at__gte=since),
        opened_at__lt=until,
        severity__gte=subscription.minimum_severity,
    ).exclude(state=Alert.State.PENDING)
    if names := split(subscription.applications):
        alerts = alerts.filter(rule__application__in=names)
    return alerts.select_related("rule", "subject").defer("facts").order_by(
        "-severity", "opened_at"
    )  # fmt: skip


def _facts(rows: Sequence[Alert], still_open: Sequence[Alert]) -> dict[str, str]:
    named = still_open[:MOST_NAMED]
    facts = {name: _sentence(alert) for name, alert in zip(_names(named), named, strict=True)}
    if len(still_open) > MOST_NAMED:
        facts["and"] = f"{len(still_open) - MOST_NAMED} more that are open"
    waits = [alert.acknowledged_at - alert.opened_at for alert in rows if alert.acknowledged_at]
    if waits:
        facts["Time to acknowledge (median)"] = _words(sorted(waits)[len(waits) // 2])
    again = Counter((alert.subject.name, alert.rule_id) for alert in rows)
    if often := [f"{name} ({count})" for (name, _), count in again.most_common(5) if count > 1]:
        facts["Most often"] = ", ".join(often)
    return facts


def _names(alerts: Sequence[Alert]) -> list[str]:
    """Return a name for each alert's row, with its rule where two rules have a row each."""
    names = [
        one_line(f"{Severity(alert.severity).label}: {alert.subject.name}", LONGEST_NAME)
        for alert in alerts
    ]
    times = Counter(names)
    return [
        f"{name} ({alert.rule})" if times[name] > 1 else name
        for name, alert in zip(names, alerts, strict=True)
    ]


def _sentence(alert: Alert) -> str:
    noted = f", acknowledged by {alert.acknowledged_by}" if alert.acknowledged_by else ""
    return f"{alert.summary} Since {local(alert.opened_at)}{noted}."


def _words(wait: timedelta) -> str:
    minutes = round(wait / timedelta(minutes=1))
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _table(rows: Sequence[Alert]) -> str:
    return as_csv(
        COLUMNS,
        (
            (
                alert.rule.application,
                alert.rule.name,
                alert.site,
                alert.subject.name,
                Severity(alert.severity).label,
                alert.state,
                local(alert.opened_at),
                local(alert.resolved_at) if alert.resolved_at else "",
                alert.acknowledged_by,
                alert.count,
                alert.summary,
            )
            for alert in rows
        ),
    )
