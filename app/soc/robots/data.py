"""What the pages of robots show, read in a fixed number of queries however many there are."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import attrgetter
from statistics import mean

from django.db.models import QuerySet

from soc.alerts import lists
from soc.alerts.models import OPEN, Alert
from soc.alerts.spans import in_words
from soc.core.severity import Severity
from soc.events import clocks, flow, refused
from soc.events.flow import Flow
from soc.events.models import Bot, BotSeen, Site
from soc.events.silence import ANCHOR
from soc.logons.models import LogonEvent
from soc.logons.reader import KIND as LOGON
from soc.mail_collector.models import Mailbox, MailEvent
from soc.mail_collector.reader import KIND as MAIL

HISTORY = timedelta(hours=1)
APART = timedelta(minutes=10)
"""Logons further apart than this are not joined by a line."""

MOST_ROBOTS = 500
MOST_FAILURES = 20
LEAST_RESPONSE = 10_000
"""Milliseconds that fill a sparkline at least: a second more must not look like a crisis."""

_WIDTH, _HEIGHT = 120, 32

WORDS = {
    "clock": {"events": "wrong clock"},
    "refused": {"events": "messages refused"},
    "bot": {"mail_collector": "no mail", "logons": "no logons"},
    "check": {"mail_collector": "a check fails"},
    "failures": {"logons": "logons fail"},
    "slow": {"logons": "slow logons"},
    "site-missing": {"mail_collector": "no site"},
}
"""What the alerts of a robot say in a word or two, by rule and application."""


@dataclass(frozen=True)
class RobotProblem:
    """An open alert of a robot."""

    key: int
    text: str
    tone: str


@dataclass(frozen=True)
class Sign:
    """When a robot was last heard of in one way, and how long ago."""

    at: datetime
    age: str


@dataclass(frozen=True)
class Logons:
    """The logons of one robot in the last hour."""

    count: int
    failed: int
    response: float | None
    line: str


@dataclass(frozen=True)
class RobotRow:
    """One robot."""

    bot: Bot
    mail: Sign | None
    logon: Sign | None
    logons: Logons
    clock: str
    refused: str
    problems: Sequence[RobotProblem]

    @property
    def tone(self) -> str:
        """How it looks."""
        if not self.bot.enabled:
            return "idle"
        if self.problems:
            tones = {problem.tone for problem in self.problems}
            return "bad" if "bad" in tones else "warn"
        return "ok" if self.mail or self.logon else "idle"

    @property
    def label(self) -> str:
        """How it is when there is no problem."""
        if not self.bot.enabled:
            return "disabled"
        return "in order" if self.mail or self.logon else "no checks yet"


@dataclass(frozen=True)
class RobotGroup:
    """The robots of one site, or those without."""

    site: Site | None
    rows: Sequence[RobotRow]

    @property
    def failing(self) -> int:
        """How many of them have an open alert."""
        return sum(bool(row.problems) for row in self.rows)


@dataclass(frozen=True)
class Overview:
    """All robots by their sites, those without a site first."""

    now: datetime
    stream: Flow
    groups: Sequence[RobotGroup]
    rest: int

    @property
    def total(self) -> int:
        """How many are shown."""
        return sum(len(group.rows) for group in self.groups)

    @property
    def failing(self) -> int:
        """How many of them have an open alert."""
        return sum(group.failing for group in self.groups)


@dataclass(frozen=True)
class Failure:
    """A check or a logon that failed."""

    at: datetime
    host: str
    what: str
    why: str


@dataclass(frozen=True)
class SitePage:
    """One site: its robots, its open alerts, their mailboxes, and what failed recently."""

    now: datetime
    stream: Flow
    group: RobotGroup
    alerts: Sequence[lists.AlertRow]
    mailboxes: Sequence[Mailbox]
    failures: Sequence[Failure]


def read_overview(now: datetime) -> Overview:
    """Read all robots."""
    bots = Bot.objects.select_related("site").order_by("site__name", "host")
    total = bots.count()
    rows = _rows(bots[:MOST_ROBOTS], now)
    groups: dict[int | None, list[RobotRow]] = {}
    for row in rows:
        groups.setdefault(row.bot.site_id, []).append(row)
    return Overview(
        now=now,
        stream=flow.read(now, HISTORY),
        groups=[RobotGroup(members[0].bot.site, members) for members in groups.values()],
        rest=total - len(rows),
    )


def read_site(site: Site, now: datetime) -> SitePage:
    """Read one site."""
    bots = Bot.objects.filter(site=site).select_related("site").order_by("host")
    alerts = lists.listed(Alert.objects.filter(OPEN, site=site.name))
    return SitePage(
        now=now,
        stream=flow.read(now, HISTORY),
        group=RobotGroup(site, _rows(bots[:MOST_ROBOTS], now)),
        alerts=lists.rows(alerts.order_by("-severity", "opened_at")[:MOST_FAILURES], now),
        mailboxes=list(Mailbox.objects.filter(bot__site=site).select_related("bot")),
        failures=_failures(site),
    )


# --- Rows ---------------------------------------------------------------------------------------


def _rows(bots: QuerySet[Bot], now: datetime) -> list[RobotRow]:
    found = list(bots)
    keys = [bot.pk for bot in found]
    signs = {
        (seen.bot_id, seen.kind): Sign(heard, in_words(now - heard))
        for seen in BotSeen.objects.filter(bot__in=keys, kind__in=(MAIL, LOGON))
        if (heard := seen.heard_at)
    }
    logons = _logons(keys, now)
    problems = _problems()
    skews = clocks.skews(now)
    of_bot = refused.by_bot()
    return [
        RobotRow(
            bot=bot,
            mail=signs.get((bot.pk, MAIL)),
            logon=signs.get((bot.pk, LOGON)),
            logons=_summary(logons.get(bot.pk, ()), now),
            clock=clocks.in_short(skews.get(bot.pk)),
            refused=of_bot[bot.pk].words if bot.pk in of_bot else "",
            problems=problems.get(bot.pk, ()),
        )
        for bot in found
    ]


_Logon = tuple[int, datetime, str, int | None]


def _logons(keys: Sequence[int], now: datetime) -> dict[int, list[_Logon]]:
    found: dict[int, list[_Logon]] = {}
    events = LogonEvent.objects.filter(bot__in=keys, at__gt=now - HISTORY, at__lte=now)
    for logon in events.values_list("bot_id", "at", "state", "response_ms"):
        found.setdefault(logon[0], []).append(logon)
    return found


def _summary(logons: Sequence[_Logon], now: datetime) -> Logons:
    points = [(at, response) for _, at, _, response in logons if response is not None]
    return Logons(
        count=len(logons),
        failed=sum(state == LogonEvent.State.FAILED for _, _, state, _ in logons),
        response=mean(response for _, response in points) / 1000 if points else None,
        line=sparkline(points, now),
    )


def sparkline(points: Sequence[tuple[datetime, int]], now: datetime) -> str:
    """Return the SVG path of the responses of the last hour, broken where none came for long."""
    scale = max([LEAST_RESPONSE, *(response for _, response in points)])
    parts, last = [], None
    for at, response in sorted(points):
        x = round(_WIDTH * (1 - (now - at) / HISTORY), 1)
        y = round(_HEIGHT - 1 - response / scale * (_HEIGHT - 2), 1)
        joined = last is not None and at - last <= APART
        # A line of no length is a dot: one without neighbours shows too.
        parts.append(f"L{x:g} {y:g}" if joined else f"M{x:g} {y:g}h0")
        last = at
    return " ".join(parts)


def _problems() -> dict[int, list[RobotProblem]]:
    """Return the open alerts of robots by the robots' keys, which stand in their links."""
    alerts = Alert.objects.filter(OPEN, link__contains=ANCHOR).exclude(state=Alert.State.PENDING)
    found: dict[int, list[RobotProblem]] = {}
    for alert in alerts.select_related("rule").only(
        "link", "severity", "rule__application", "rule__name"
    ):
        rule = alert.rule
        words = WORDS.get(rule.name, {}).get(rule.application, rule.name)
        problem = RobotProblem(alert.pk, words, lists.TONES[Severity(alert.severity)])
        key = alert.link.rpartition(ANCHOR)[2]
        if key.isdecimal():
            found.setdefault(int(key), []).append(problem)
    return found


def _failures(site: Site) -> list[Failure]:
    mail = MailEvent.objects.filter(bot__site=site, passed=False).order_by("-at")
    logons = LogonEvent.objects.filter(bot__site=site, state=LogonEvent.State.FAILED)
    failures = [
        *(
            Failure(event.at, event.bot.host, f"{event.kind} {event.mailbox}", event.text)
            for event in mail.select_related("bot")[:MOST_FAILURES]
        ),
        *(
            Failure(event.at, event.bot.host, f"logon at {event.broker}", event.reason)
            for event in logons.order_by("-at").select_related("bot")[:MOST_FAILURES]
        ),
    ]
    return sorted(failures, key=attrgetter("at"), reverse=True)[:MOST_FAILURES]
