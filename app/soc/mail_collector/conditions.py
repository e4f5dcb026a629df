"""What the mail collector reports to the alerts by the clock; failed checks are reported as
they come.

Silence is measured by the time that the stream has reached, and what a server or a pair of domains
lacks by the time for which robots were there to see it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from django.urls import reverse

from soc.alerts import engine
from soc.alerts.conditions import Condition
from soc.alerts.spans import in_words
from soc.common.times import local
from soc.core.severity import Severity
from soc.events import backlog, clocks, dead, expected, flow, silence
from soc.events.flow import Flow
from soc.events.models import Bot
from soc.events.silence import Limits, Robot
from soc.mail_collector import messages
from soc.mail_collector.collect import APPLICATION, CHECK
from soc.mail_collector.models import Mailbox, MailSettings, Route, Watch
from soc.mail_collector.reader import KIND

SERVER = "server"
DATABASE = "database"
ROUTE = "pair"
WITHOUT_SITE = "site-missing"

_CHECKS = {"connected_at": "connection", "sent_at": "send", "received_at": "receive"}
"""The checks that a server and a database must pass, by where a mailbox notes them."""


def report(now: datetime) -> int:
    """Report how robots, sites, servers, databases and pairs of domains are.

    While the stream is silent nothing is known, and only that is reported. Returns how many mails
    that makes.
    """
    settings = MailSettings.current()
    flow.forget_the_future(now)
    longest = max(settings.bot_critical, settings.server_critical, settings.route_unverified)
    stream = flow.read(now, silence.reach(longest))
    robots = silence.watched(KIND, stream)
    bots = list(Bot.objects.filter(enabled=True).select_related("site"))
    _retire_robots(robots, bots)
    mails = _report(
        flow.condition(stream),
        dead.conditions(now),
        backlog.conditions(now),
        clocks.conditions(bots, now),
        expected.conditions(bots, now),
        (_without_site(bot, now) for bot in bots),
    )
    if stream.at is None or stream.is_silent:
        return mails
    seen = SeenMail.read(stream, stream.at)
    limits = Limits(settings.bot_warning, settings.bot_critical)
    server_limits = Limits(settings.server_warning, settings.server_critical)
    _retire_places(seen, bots)
    # What explains others comes first: those are suppressed while it is failing.
    mails += _report(silence.of_sites(APPLICATION, robots, stream, limits))
    mails += _report(
        silence.of_robots(APPLICATION, robots, stream, limits),
        (_server(seen, name, server_limits) for name in seen.servers),
    )
    return mails + _report(
        (_database(seen, *names, server_limits) for names in seen.databases),
        (_route(seen, route, Limits(settings.route_unverified)) for route in seen.routes),
    )


def _report(*conditions: Iterable[Condition]) -> int:
    told = [condition for some in conditions for condition in some]
    return sum(result.mails for result in engine.report(told))


def _retire_robots(robots: Sequence[Robot], bots: Sequence[Bot]) -> None:
    silence.retire(APPLICATION, silence.BOT, (robot.host for robot in robots))
    silence.retire(APPLICATION, silence.SITE, (robot.site for robot in robots))
    silence.retire(APPLICATION, WITHOUT_SITE, (bot.host for bot in bots))
    silence.retire(flow.APPLICATION, clocks.RULE, (bot.host for bot in bots))
    silence.retire(flow.APPLICATION, expected.RULE, (bot.host for bot in bots if bot.interval))


def _retire_places(seen: "SeenMail", bots: Sequence[Bot]) -> None:
    silence.retire(APPLICATION, SERVER, seen.servers)
    silence.retire(APPLICATION, DATABASE, (_name(*names) for names in seen.databases))
    silence.retire(APPLICATION, ROUTE, map(str, seen.routes))
    # A check without a mailbox is reported under the robot's own name.
    names = {box.address for box in seen.mailboxes} | {bot.host for bot in bots}
    kinds = [kind.value for kind in messages.Kind]
    silence.retire(APPLICATION, CHECK, (f"{name}: {kind}" for name in names for kind in kinds))


# --- What robots see ----------------------------------------------------------------------------


@dataclass(frozen=True)
class SeenMail:
    """The mailboxes of the enabled robots, when each robot was there, and the pairs of domains.

    ``at`` is the time that the stream has reached.
    """

    stream: Flow
    at: datetime
    watches: dict[int, Watch]
    mailboxes: Sequence[Mailbox]
    routes: Sequence[Route]

    @classmethod
    def read(cls, stream: Flow, at: datetime) -> "SeenMail":
        """Read all of it."""
        return cls(
            stream=stream,
            at=at,
            watches={watch.bot_id: watch for watch in Watch.objects.filter(bot__enabled=True)},
            mailboxes=list(Mailbox.objects.filter(bot__enabled=True).select_related("bot")),
            routes=list(Route.objects.all()),
        )

    @cached_property
    def servers(self) -> dict[str, list[Mailbox]]:
        """The mailboxes of each server."""
        found: dict[str, list[Mailbox]] = {}
        for box in self.mailboxes:
            if box.server:
                found.setdefault(box.server, []).append(box)
        return found

    @cached_property
    def databases(self) -> dict[tuple[str, str], list[Mailbox]]:
        """The mailboxes of each server's databases."""
        found: dict[tuple[str, str], list[Mailbox]] = {}
        for box in self.mailboxes:
            if box.database:
                found.setdefault((box.server, box.database), []).append(box)
        return found

    @cached_property
    def domains(self) -> dict[str, list[Mailbox]]:
        """The mailboxes of each domain."""
        found: dict[str, list[Mailbox]] = {}
        for box in self.mailboxes:
            found.setdefault(box.domain, []).append(box)
        return found

    def without(self, at: datetime, mailboxes: Iterable[Mailbox]) -> timedelta:
        """Return for how long robots of these mailboxes have looked in vain for what was at ``at``.

        A robot that comes back has looked since then, and so has everybody when the stream does.
        """
        begun = max(at, self.stream.since or at)
        spans = (
            watch.heard_at - max(begun, watch.since, box.since)
            for box in mailboxes
            if (watch := self.watches.get(box.bot_id))
        )
        return max(spans, default=timedelta())


# --- Servers and databases ----------------------------------------------------------------------


def _server(seen: SeenMail, name: str, limits: Limits) -> Condition:
    mailboxes = seen.servers[name]
    return _place(seen, SERVER, name, mailboxes, mailboxes, limits)


def _database(seen: SeenMail, server: str, database: str, limits: Limits) -> Condition:
    mailboxes = seen.databases[server, database]
    name, parent = _name(server, database), (SERVER, server)
    return _place(seen, DATABASE, name, mailboxes, seen.servers[server], limits, parent)


def _name(server: str, database: str) -> str:
    return f"{server}/{database}"


def _place(
    seen: SeenMail,
    rule: str,
    name: str,
    mailboxes: Sequence[Mailbox],
    of_server: Sequence[Mailbox],
    limits: Limits,
    parent: tuple[str, str] | None = None,
) -> Condition:
    spans = _lacks(seen, mailboxes, of_server, limits.warning)
    lacks = {what: span for what, span in spans if limits.severity(span)}
    longest = max(lacks.values(), default=timedelta())
    words = ", ".join(f"no {what} for {in_words(span)}" for what, span in lacks.items())
    return Condition(
        application=APPLICATION,
        rule=rule,
        subject=name,
        severity=limits.severity(longest),
        observed_at=seen.at,
        summary=f"{words[:1].upper()}{words[1:]}." if words else "",
        facts={"Mailboxes": ", ".join(dict.fromkeys(box.address for box in mailboxes))},
        link=reverse("mail-matrix"),
        parent=parent,
    )


def _lacks(
    seen: SeenMail, mailboxes: Sequence[Mailbox], of_server: Sequence[Mailbox], limit: timedelta
) -> Iterator[tuple[str, timedelta]]:
    """Yield for how long each check has not passed; one that never did is not expected to."""
    for field, what in _CHECKS.items():
        if at := _newest(mailboxes, field):
            others = _newest(of_server, field) or at
            yield what, seen.without(seen.stream.together(at, others, limit), mailboxes)


def _newest(mailboxes: Sequence[Mailbox], field: str) -> datetime | None:
    return max((at for box in mailboxes if (at := getattr(box, field))), default=None)


# --- Pairs of domains ---------------------------------------------------------------------------


def _route(seen: SeenMail, route: Route, limits: Limits) -> Condition:
    unverified = _unverified(seen, route)
    if route.is_failing:
        severity, words = Severity.CRITICAL, f"The last mail failed: {route.problem}"
    else:
        severity = limits.severity(unverified)
        words = f"No mail was verified for {in_words(unverified)}."
    return Condition(
        application=APPLICATION,
        rule=ROUTE,
        subject=str(route),
        severity=severity,
        observed_at=seen.at,
        summary=words,
        facts={
            "Last sent": _moment(route.sent_at),
            "Last verified": _moment(route.verified_at),
            "Last failed": _moment(route.failed_at),
        },
        link=reverse("mail-matrix"),
        # Who is notified of the failed check need not be notified of the pair as well.
        parent=(CHECK, route.failed_check) if route.is_failing else None,
    )


def _unverified(seen: SeenMail, route: Route) -> timedelta:
    """Return for how long robots at both ends have looked in vain for a mail that arrives."""
    begun = route.verified_at or route.first_sent_at
    if begun is None:
        return timedelta()
    ends = (seen.domains.get(domain, ()) for domain in (route.sender, route.recipient))
    return min(seen.without(begun, mailboxes) for mailboxes in ends)


def _moment(at: datetime | None) -> str:
    return local(at) if at else "never"


# --- Robots without a site ----------------------------------------------------------------------


def _without_site(bot: Bot, now: datetime) -> Condition:
    return Condition(
        application=APPLICATION,
        rule=WITHOUT_SITE,
        subject=bot.host,
        severity=Severity.OK if bot.site else Severity.WARNING,
        observed_at=now,
        summary="The robot has no site: its silence is nobody's.",
        link=silence.page_of(bot.pk),
        site=bot.site.name if bot.site else "",
    )
