"""Whose messages are refused: the dead letters that wait for a person, host by host."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Max, Min, QuerySet, Sum

from soc.common.text import counted
from soc.common.times import local
from soc.events.models import Bot, BotAlias, DeadLetter

MOST_HOSTS = 500
"""Hosts that are distinguished."""


@dataclass(frozen=True)
class RefusedHost:
    """A host whose messages wait as dead letters; the empty one stands for what names no host.

    ``host`` is the robot's own name if one goes by the name in the messages, and ``bot`` its key.
    ``reason`` is that of the newest letter.
    """

    host: str
    bot: int | None
    site: str
    messages: int
    since: datetime
    reason: str

    @property
    def words(self) -> str:
        """How many messages are refused, since when and why."""
        messages = counted(self.messages, "message")
        return f"{messages} of it refused since {local(self.since)}: {self.reason}"


def hosts() -> list[RefusedHost]:
    """Return the hosts whose messages are refused, at most `MOST_HOSTS`, those with the most first.

    Their names come from outside: a shipper may have one of its own for each message.
    """
    groups = (
        _waiting()
        .values_list("host")
        .annotate(messages=Sum("times"), since=Min("first_seen_at"), newest=Max("pk"))
    )
    found = list(groups.order_by("-messages", "host")[:MOST_HOSTS])
    bots = _bots([host for host, *_ in found])
    merged: dict[str, tuple[int, datetime, int]] = {}
    for host, messages, since, newest in found:
        name = bots[host].host if host in bots else host
        others, earlier, later = merged.get(name, (0, since, 0))
        merged[name] = others + messages, min(earlier, since), max(later, newest)
    keys = [newest for _, _, newest in merged.values()]
    reasons = dict(DeadLetter.objects.filter(pk__in=keys).values_list("pk", "reason"))
    of_name = {bot.host: bot for bot in bots.values()}
    return [
        _refused(host, of_name.get(host), messages, since, reasons.get(newest, ""))
        for host, (messages, since, newest) in sorted(
            merged.items(), key=lambda one: (-one[1][0], one[0])
        )
    ]


def messages() -> int:
    """Return how many messages of any host are refused."""
    return _waiting().aggregate(n=Sum("times"))["n"] or 0


def by_bot() -> Mapping[int, RefusedHost]:
    """Return what is refused of each robot by the robots' keys."""
    return {one.bot: one for one in hosts() if one.bot is not None}


def _waiting() -> QuerySet[DeadLetter]:
    return DeadLetter.objects.filter(state=DeadLetter.State.WAITING).order_by()


def _refused(
    host: str, bot: Bot | None, messages: int, since: datetime, reason: str
) -> RefusedHost:
    site = bot.site.name if bot and bot.site else ""
    return RefusedHost(host, bot.pk if bot else None, site, messages, since, reason)


def _bots(names: list[str]) -> dict[str, Bot]:
    """Return the robots that go by these names."""
    aliases = BotAlias.objects.filter(name__in=names).select_related("bot__site")
    bots = Bot.objects.filter(host__in=names).select_related("site")
    return {alias.name: alias.bot for alias in aliases} | {bot.host: bot for bot in bots}
