"""Robots that were entered before their first event, and have not been heard of since."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from soc.alerts.conditions import Condition
from soc.alerts.spans import in_words
from soc.core.severity import Severity
from soc.events import silence
from soc.events.flow import APPLICATION
from soc.events.models import Bot, BotSeen

RULE = "expected"


def conditions(bots: Iterable[Bot], now: datetime) -> Iterator[Condition]:
    """Yield of each robot with an interval whether it was ever heard of."""
    heard = set(BotSeen.objects.values_list("bot_id", flat=True))
    for bot in bots:
        if bot.interval is not None:
            waited = now - bot.created_at
            missing = bot.pk not in heard and waited >= silence.MISSED * bot.interval
            yield Condition(
                application=APPLICATION,
                rule=RULE,
                subject=bot.host,
                severity=Severity.WARNING if missing else Severity.OK,
                observed_at=now,
                summary=f"Never heard of since it was entered {in_words(waited)} ago.",
                facts={"Expected": f"every {in_words(bot.interval)}"},
                link=silence.page_of(bot.pk),
                site=bot.site.name if bot.site else "",
            )
