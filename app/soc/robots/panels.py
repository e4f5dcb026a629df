"""The robots' part of the board."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q

from soc.alerts.models import OPEN, Alert
from soc.common.panels import Panel, Problem
from soc.common.text import counted
from soc.events import flow, refused, silence
from soc.events.models import Bot
from soc.events.refused import RefusedHost


@dataclass(frozen=True)
class RobotNumbers:
    """How many robots are watched and silent, whether the stream is, and whose events are refused.

    ``refused`` are the hosts with the most refused messages first.
    """

    total: int
    silent: int
    stream_is_silent: bool
    refused: Sequence[RefusedHost]


def read(_: datetime) -> RobotNumbers:
    """Return the numbers of robots; a robot is silent if it is so to any application."""
    alerts = Alert.objects.filter(OPEN).exclude(state=Alert.State.PENDING)
    silent = alerts.filter(
        Q(rule__name=silence.BOT, rule__application__in=("logons", "mail_collector"))
        | Q(rule__name=flow.RULE, rule__application=flow.APPLICATION)
    )
    reported = set(silent.order_by().values_list("rule__name", "subject__name"))
    return RobotNumbers(
        total=Bot.objects.filter(enabled=True).count(),
        silent=sum(rule == silence.BOT for rule, _ in reported),
        stream_is_silent=any(rule == flow.RULE for rule, _ in reported),
        refused=refused.hosts(),
    )


def problems(robots: RobotNumbers, _: datetime) -> Iterator[Problem]:
    """Complain of a silent stream, or else of silent robots, and of refused messages."""
    if robots.stream_is_silent:
        yield Problem("bad", "No event comes from any robot.", "robots")
    elif robots.silent:
        verb = "is" if robots.silent == 1 else "are"
        text = f"{robots.silent} of {counted(robots.total, 'robot')} {verb} silent."
        yield Problem("warn", text, "robots")
    if robots.refused:
        yield Problem("warn", _refused(robots.refused), "robots")


def _refused(hosts: Sequence[RefusedHost]) -> str:
    number = sum(one.messages for one in hosts)
    verb = "is" if number == 1 else "are"
    most = hosts[0]
    of = most.host or "an unknown host"
    if others := len(hosts) - 1:
        of += f" and {counted(others, 'other host')}"
    return f"{counted(number, 'message')} of {of} {verb} refused: {most.reason}"


PANELS = (
    Panel(
        *("robots", read, problems, "robots/panel.html", "alerts.view_alert"),
        column="narrow",
        position=20,
    ),
)
