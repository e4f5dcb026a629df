"""What operators see of alerts: filtered lists, pages of them, and one alert with its history.

Everything is read in a fixed number of queries, and long texts are cut by the database.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.core.paginator import Page
from django.db.models import Count, Exists, Max, OuterRef, Q, QuerySet
from django.db.models.functions import Left

from soc.alerts import notified
from soc.alerts.models import OPEN, Alert, AlertEvent, Rule
from soc.alerts.notified import Notified
from soc.alerts.spans import in_words
from soc.common import listing
from soc.common.listing import Choice, CountedPages, QueryFilter, Tab
from soc.core.severity import Severity
from soc.notify.models import OutboundMail

State = Alert.State

ATTENTION = Q(state=State.FIRING) | Q(state=State.FLAPPING, acknowledged_at=None)
"""The alerts that wait for a person."""

TONES = {
    Severity.CRITICAL: "bad",
    Severity.WARNING: "warn",
    Severity.INFO: "info",
    Severity.OK: "ok",
}
"""How each severity looks, the worst first."""

SHOWN_TEXT = 160
MOST_EVENTS = 200
MOST_EPISODES = 5
MOST_MAILS = 20
APART = timedelta(seconds=60)
"""An event time this far from the time it was written is worth showing."""

ENDED = {"7": timedelta(days=7), "30": timedelta(days=30)}
"""The choices of how long ago a resolved alert may have ended."""


@dataclass(frozen=True)
class AlertRow:
    """One alert as a list shows it."""

    alert: Alert
    now: datetime

    @property
    def tone(self) -> str:
        """How its severity looks."""
        return TONES[Severity(self.alert.severity)]

    @property
    def waits(self) -> bool:
        """Whether it waits for a person."""
        flaps_unknown = self.alert.state == State.FLAPPING and self.alert.acknowledged_at is None
        return self.alert.state == State.FIRING or flaps_unknown

    @property
    def age(self) -> str:
        """How long it has been open, or was."""
        return in_words((self.alert.resolved_at or self.now) - self.alert.opened_at)

    @property
    def seen(self) -> str:
        """How long ago its condition was last reported."""
        return in_words(self.now - self.alert.last_seen_at)


def rows(alerts: Iterable[Alert], now: datetime) -> list[AlertRow]:
    """Return the rows of alerts."""
    return [AlertRow(alert, now) for alert in alerts]


def listed(alerts: QuerySet[Alert]) -> QuerySet[Alert]:
    """Read only what a row shows."""
    return (
        alerts.select_related("rule", "subject")
        .only(
            *("severity", "state", "site", "opened_at", "last_seen_at", "resolved_at", "count"),
            *("acknowledged_at", "acknowledged_by", "acknowledged_until", "suppressed_by"),
            *("rule__application", "rule__name", "subject__name"),
        )
        .annotate(brief=Left("summary", SHOWN_TEXT), note_start=Left("note", SHOWN_TEXT))
    )


# --- The list -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """The alerts of one severity and state: how many, how many of them wait, the last key."""

    severity: int
    state: str
    count: int
    waiting: int
    newest: int


@dataclass(frozen=True)
class AlertsFilter(QueryFilter):
    """What a person asks to see, as it stands in the address; an unknown value matches nothing."""

    application: str = ""
    rule: str = ""
    site: str = ""
    severity: str = ""
    state: str = ""
    q: str = ""
    ended: str = ""

    def matching(self, now: datetime) -> QuerySet[Alert]:
        """Return the alerts that match, in no order."""
        alerts = self._of_any_state(now)
        if self.severity:
            alerts = alerts.filter(severity__in=[s for s in Severity if s.label == self.severity])
        if self.state == "attention":
            return alerts.filter(ATTENTION)
        return alerts.filter(state=self.state) if self.state else alerts

    def count(self, cells: Iterable[Cell]) -> int:
        """Return how many of the counted alerts `matching` selects."""
        return sum(
            cell.waiting if self.state == "attention" else cell.count for cell in self.within(cells)
        )

    def within(self, cells: Iterable[Cell]) -> list[Cell]:
        """Return the cells whose severity and state match."""
        return [
            cell
            for cell in cells
            if self.severity in ("", Severity(cell.severity).label)
            and self.state in ("", "attention", cell.state)
        ]

    def in_time(self, now: datetime) -> QuerySet[Alert]:
        """Return the open alerts, or the ones that ended in the days that are asked for."""
        if not self.ended:
            return Alert.objects.filter(OPEN)
        if self.ended not in ENDED:
            return Alert.objects.none()
        return Alert.objects.filter(resolved_at__gt=now - ENDED[self.ended])

    def _of_any_state(self, now: datetime) -> QuerySet[Alert]:
        alerts = self.in_time(now)
        if self.application:
            alerts = alerts.filter(rule__application=self.application)
        if self.rule:
            application, _, name = self.rule.partition("/")
            alerts = alerts.filter(rule__application=application, rule__name=name)
        if self.site:
            alerts = alerts.filter(site=self.site)
        for word in self.q.split():
            named = Q(subject__name__icontains=word) | Q(rule__name__icontains=word)
            told = Q(summary__icontains=word) | Q(note__icontains=word)
            alerts = alerts.filter(named | told | Q(acknowledged_by__icontains=word))
        return alerts

    def cells(self, now: datetime) -> list[Cell]:
        """Count what matches but for severity and state, by these two."""
        counted = (
            self._of_any_state(now)
            .order_by()
            .values("severity", "state")
            .annotate(n=Count("pk"), waiting=Count("pk", filter=ATTENTION), newest=Max("pk"))
        )
        return [
            Cell(row["severity"], row["state"], row["n"], row["waiting"], row["newest"])
            for row in counted
        ]

    def ordered(self, now: datetime) -> QuerySet[Alert]:
        """Return what matches: open ones worst first, then oldest; ended ones latest first."""
        order = ("-resolved_at",) if self.ended else ("-severity", "opened_at")
        return listed(self.matching(now)).order_by(*order, "pk")


@dataclass(frozen=True)
class AlertListing:
    """One page of a filtered list, with what is chosen and what else could be."""

    now: datetime
    filter: AlertsFilter
    page: Page[Alert]
    rows: Sequence[AlertRow]
    cells: Sequence[Cell]

    @property
    def total(self) -> int:
        """How many alerts match."""
        return self.page.paginator.count

    @property
    def newest(self) -> int:
        """The highest key among what matches: what opens later was not looked at."""
        return max((cell.newest for cell in self.filter.within(self.cells)), default=0)

    @property
    def waiting(self) -> int:
        """How many of what matches wait for a person."""
        return sum(cell.waiting for cell in self.filter.within(self.cells))

    @property
    def tabs(self) -> list[Tab]:
        """The states with their counts; what is resolved is no part of a list of open alerts."""
        if self.filter.ended:
            return []
        shown = [("", "All open"), ("attention", "Need attention")]
        shown += [(state.value, str(state.label)) for state in State if state != State.RESOLVED]
        return [self._tab(value, label) for value, label in shown]

    def _tab(self, value: str, label: str) -> Tab:
        other = self.filter.but(state=value)
        chosen = value == self.filter.state
        return Tab(label, "none", other.count(self.cells), other.query, chosen)


def read_page(query: AlertsFilter, number: str, now: datetime) -> AlertListing:
    """Read one page of a list; a number beyond the last page is the last page."""
    cells = query.cells(now)
    page = CountedPages(query.ordered(now), query.count(cells)).get_page(number)
    return AlertListing(now, query, page, rows(page.object_list, now), cells)


def choices(query: AlertsFilter, now: datetime) -> dict[str, list[Choice]]:
    """Return what each filter offers."""
    rules = list(Rule.objects.order_by("application", "name").values_list("application", "name"))
    sites = query.in_time(now).order_by("site").values_list("site", flat=True).distinct()
    offered = {
        "application": [(name, name) for name in dict.fromkeys(name for name, _ in rules)],
        "rule": [(f"{application}/{name}",) * 2 for application, name in rules],
        "site": [(site, site) for site in sites if site],
        "severity": [(str(s.label), str(s.label)) for s in TONES if s != Severity.OK],
        "ended": [(days, f"resolved in the last {days} days") for days in ENDED],
    }
    return {name: listing.choices(getattr(query, name), pairs) for name, pairs in offered.items()}


# --- One alert ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class TimelineEntry:
    """One change of the timeline."""

    event: AlertEvent
    notified: Notified

    @property
    def tone(self) -> str:
        """How it looks."""
        if self.event.kind == AlertEvent.Kind.RESOLVED:
            return "ok"
        return TONES[Severity(self.event.severity)]

    @property
    def observed_at(self) -> datetime | None:
        """When the condition was observed, if that was at another time."""
        observed, written = self.event.observed_at, self.event.at
        return observed if observed and abs(written - observed) > APART else None


@dataclass(frozen=True)
class Episode:
    """An earlier alert of the same subject."""

    alert: Alert
    length: str
    fired: bool


@dataclass(frozen=True)
class AlertDetail:
    """One alert with everything that is known about it."""

    row: AlertRow
    facts: Sequence[tuple[str, str]]
    entries: Sequence[TimelineEntry]
    left_out: int
    episodes: Sequence[Episode]
    mails: Sequence[OutboundMail]

    @property
    def link(self) -> str:
        """The address of the subject's page; what is no web address is not linked."""
        link = self.row.alert.link
        return link if link.startswith(("/", "http://", "https://")) else ""


def read_detail(alert: Alert, now: datetime) -> AlertDetail:
    """Read an alert's history."""
    # The newest come last on the page; of a long history they matter more.
    latest = list(alert.events.order_by("-at", "-pk")[: MOST_EVENTS + 1])
    left_out = alert.events.count() - MOST_EVENTS if len(latest) > MOST_EVENTS else 0
    shown = latest[:MOST_EVENTS][::-1]
    mails = notified.mails_of(alert)
    notified_of = notified.of_events(alert, shown, mails)
    return AlertDetail(
        row=AlertRow(alert, now),
        facts=list(alert.facts.items()),
        entries=[TimelineEntry(event, notified_of[event.pk]) for event in shown],
        left_out=left_out,
        episodes=_episodes(alert),
        mails=mails[:MOST_MAILS],
    )


def _episodes(alert: Alert) -> list[Episode]:
    fired = AlertEvent.objects.filter(alert=OuterRef("pk"), kind=AlertEvent.Kind.FIRED)
    earlier = (
        Alert.objects.filter(subject=alert.subject_id, opened_at__lt=alert.opened_at)
        .defer("facts")
        .annotate(fired=Exists(fired))
        .order_by("-opened_at")[:MOST_EPISODES]
    )
    return [
        Episode(
            one, in_words(one.resolved_at - one.opened_at) if one.resolved_at else "", one.fired
        )
        for one in earlier
    ]
