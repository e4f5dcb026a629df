"""Digests: one mail with a table in place of many notices."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.conf import settings
from django.template.loader import render_to_string
from django.utils import timezone

from soc.common.tables import as_csv
from soc.core.severity import Severity
from soc.notify.models import OutboundMail, Subscription
from soc.notify.templates import Rendered, cut, line, rows_within

MOST_ROWS = 100
"""Rows of a table, which keep the mail below 1 MB; the CSV has all."""

LONGEST_TITLE = 120
CSV_NAME = "notices.csv"

NEEDED = (
    *("severity", "status", "title", "subject", "link", "application"),
    *("created_at", "concluded_at", "attempts", "recipients"),
)
"""What a digest reads of its notices; their bodies stay in the database."""


@dataclass(frozen=True)
class DigestRow:
    """One notice of a digest."""

    status: str
    severity: str
    title: str
    since: str
    link: str


def render(subscription: Subscription, members: Sequence[OutboundMail]) -> Rendered:
    """Render a digest of waiting notices, the worst first, the oldest of these before the others.

    Each notice's time is the moment it was reported.
    """
    ordered = in_order(members)
    rows = [_row(mail) for mail in ordered[:MOST_ROWS]]
    title = title_of(members)
    rest = len(members) - len(rows)
    values: dict[str, object] = {
        "site": settings.SITE["SOC_SITE"],
        "zone": settings.TIME_ZONE,
        "severity": severity_of(members).label,
        "title": title,
        "summary": f"{_counts(members)}.",
        "rows": rows,
        "rest": f"{rest} more are not shown here; the board has them." if rest else "",
    }
    subject = f"{subscription.subject_prefix}DIGEST: {title}, {_counts(members)} ({values['site']})"
    return Rendered(
        subject=line(subject),
        text=_text(values, rows),
        html=render_to_string("notify/digest.html", values),
    )


def in_order(members: Sequence[OutboundMail]) -> list[OutboundMail]:
    """Return notices the worst first, and the oldest of these before the others."""
    return sorted(members, key=lambda mail: (-_weight(mail), mail.created_at))


def title_of(members: Sequence[OutboundMail]) -> str:
    """Return a digest's headline."""
    return f"{len(members)} notices"


def severity_of(members: Sequence[OutboundMail]) -> Severity:
    """Return the worst severity among notices."""
    return max(_weight(mail) for mail in members)


def table(members: Sequence[OutboundMail]) -> str:
    """Return all notices of a digest as CSV (RFC 4180), times in UTC."""
    columns = ("status", "severity", "title", "since", "application", "link")
    rows = (
        (
            *(mail.status, str(Severity(mail.severity).label), mail.title),
            *(f"{mail.created_at:%Y-%m-%dT%H:%M:%SZ}", mail.application, mail.link),
        )
        for mail in in_order(members)
    )
    return rows_within(as_csv(columns, rows))


def _weight(mail: OutboundMail) -> Severity:
    """Return how bad a notice's news is; that of an end is none, whatever has ended."""
    return Severity.OK if mail.concluded_at else Severity(mail.severity)


def _counts(members: Sequence[OutboundMail]) -> str:
    statuses: dict[str, int] = {}
    for mail in in_order(members):
        statuses[_status(mail)] = statuses.get(_status(mail), 0) + 1
    return ", ".join(f"{count} {status}" for status, count in statuses.items())


def _status(mail: OutboundMail) -> str:
    return mail.status or str(Severity(mail.severity).label)


def _row(mail: OutboundMail) -> DigestRow:
    return DigestRow(
        status=_status(mail),
        severity=str(Severity(mail.severity).label),
        title=cut(mail.title or mail.subject, LONGEST_TITLE, mark="…"),
        since=f"{timezone.localtime(mail.created_at):%Y-%m-%d %H:%M}",
        link=mail.link,
    )


def _text(values: dict[str, object], rows: Sequence[DigestRow]) -> str:
    lines = [f"{values['title']}: {values['summary']}", ""]
    for row in rows:
        lines.append(f"{row.since}  {row.status.upper():<10}  {row.title}")
        if row.link:
            lines.append(f"    {row.link}")
    if values["rest"]:
        lines += ["", str(values["rest"])]
    return "\n".join((*lines, "", f"Times are in {values['zone']}."))
