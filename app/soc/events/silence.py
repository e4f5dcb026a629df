"""Which robots and sites are silent; a site is when all of its robots are."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Max
from django.urls import reverse

from soc.alerts import actions
from soc.alerts.conditions import LONGEST_SUBJECT, Condition, one_line
from soc.alerts.models import OPEN, Alert
from soc.alerts.spans import in_words
from soc.common.times import local
from soc.core.severity import Severity
from soc.events import refused
from soc.events.flow import Flow
from soc.events.models import Bot, BotSeen, later

BOT = "bot"
SITE = "site"
"""The rules that an application reports its robots' silence under."""

MISSED, LONG_MISSED = 2, 6
"""Intervals of its own after which a robot's silence is a warning, and critical."""

ANCHOR = "#robot-"
"""What stands before a robot's key in the address of its place on the robots' page."""


def page_of(bot: int) -> str:
    """Return the address of a robot's place on the robots' page."""
    return f"{reverse('robots')}{ANCHOR}{bot}"


@dataclass(frozen=True)
class Robot:
    """A robot that is watched, and when the events of one kind last came from it."""

    key: int
    host: str
    site: str
    site_key: int | None
    heard: datetime
    refused: str = ""
    """What of its messages is refused, in words."""
    interval: timedelta | None = None
    """How often it is expected, if it has an interval of its own."""


@dataclass(frozen=True)
class Limits:
    """From which silence on there is a problem; without ``critical`` it does not get worse."""

    warning: timedelta
    critical: timedelta | None = None

    def of(self, interval: timedelta | None) -> "Limits":
        """Return the limits of a robot with an interval of its own, or these without one."""
        if interval is None:
            return self
        return Limits(MISSED * interval, self.critical and LONG_MISSED * interval)

    def severity(self, silence: timedelta) -> Severity:
        """Return how bad a silence is."""
        if self.critical is not None and silence >= self.critical:
            return Severity.CRITICAL
        return Severity.WARNING if silence >= self.warning else Severity.OK


def watched(kind: str, stream: Flow) -> list[Robot]:
    """Return the enabled robots that have ever shown a kind of events, the hosts in order.

    One was heard when its newest fresh event happened, or when any last arrived, whichever is
    later: with a slow clock it is late and not silent.
    """
    seen = BotSeen.objects.filter(kind=kind, bot__enabled=True).order_by("bot__host")
    of_bot = {key: one.words for key, one in refused.by_bot().items()}
    return [
        Robot(
            one.bot_id,
            one.bot.host,
            one.bot.site.name if one.bot.site else "",
            one.bot.site_id,
            heard,
            of_bot.get(one.bot_id, ""),
            one.bot.interval,
        )
        for one in seen.select_related("bot__site")
        if (heard := later(one.at, one.arrived_at and stream.of_arrival(one.arrived_at)))
    ]


def reach(longest: timedelta) -> timedelta:
    """Return how far back the stream must be looked at for limits, and robots' own intervals."""
    watched = Bot.objects.filter(enabled=True)
    minutes = watched.aggregate(most=Max("expected_minutes"))["most"] or 0
    return max(longest, LONG_MISSED * timedelta(minutes=minutes))


def of_sites(
    application: str, robots: Iterable[Robot], flow: Flow, limits: Limits
) -> list[Condition]:
    """Return how the sites are. Report them before their robots, whom their silence explains."""
    members: dict[str, list[Robot]] = {}
    for robot in robots:
        if robot.site:
            members.setdefault(robot.site, []).append(robot)
    return [_site(application, name, bots, flow, limits) for name, bots in members.items()]


def of_robots(
    application: str, robots: Iterable[Robot], flow: Flow, limits: Limits
) -> list[Condition]:
    """Return how the robots are."""
    robots = list(robots)
    of_site: dict[str, datetime] = {}
    for robot in robots:
        of_site[robot.site] = max(robot.heard, of_site.get(robot.site, robot.heard))
    return [
        _robot(application, robot, of_site[robot.site] if robot.site else robot.heard, flow, limits)
        for robot in robots
    ]


def retire(application: str, rule: str, watched: Iterable[str]) -> int:
    """Resolve the alerts of a rule whose subjects are no longer watched; return how many."""
    alerts = Alert.objects.filter(OPEN, rule__application=application, rule__name=rule)
    kept = {one_line(name, LONGEST_SUBJECT) for name in watched}
    gone = [key for key, name in alerts.values_list("pk", "subject__name") if name not in kept]
    if not gone:
        return 0
    return actions.resolve(Alert.objects.filter(pk__in=gone), "", "It is no longer watched.")


def _site(
    application: str, name: str, robots: Sequence[Robot], flow: Flow, limits: Limits
) -> Condition:
    last = max(robots, key=lambda robot: robot.heard)
    silence = flow.silence(last.heard)
    all_of_them = "its only robot" if len(robots) == 1 else f"all its {len(robots)} robots"
    return Condition(
        application=application,
        rule=SITE,
        subject=name,
        severity=min(
            limits.of(robot.interval).severity(flow.silence(robot.heard)) for robot in robots
        ),
        observed_at=flow.at or flow.now,
        summary=f"Nothing for {in_words(silence)} from {all_of_them}.",
        facts={"Robots": ", ".join(robot.host for robot in robots), "Last": _last(last)},
        link=reverse("robots-site", args=[last.site_key]),
        site=name,
    )


def _robot(
    application: str, robot: Robot, site_heard: datetime, flow: Flow, limits: Limits
) -> Condition:
    limits = limits.of(robot.interval)
    silence = flow.silence(flow.together(robot.heard, site_heard, limits.warning))
    return Condition(
        application=application,
        rule=BOT,
        subject=robot.host,
        severity=limits.severity(silence),
        observed_at=flow.at or flow.now,
        summary=" ".join(filter(None, (f"Nothing for {in_words(silence)}.", robot.refused))),
        facts={"Last": _last(robot)},
        link=page_of(robot.key),
        site=robot.site,
        parent=(SITE, robot.site) if robot.site else None,
    )


def _last(robot: Robot) -> str:
    return f"{local(robot.heard)} from {robot.host}"
