"""How wrong robots' clocks are, by how much later than their own time their events arrive.

A slow clock and a slow delivery look alike. What is late of one robot only is put down to its
clock; what is late of all of them is the stream's, such as a backlog that is worked off.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from statistics import median

from soc.alerts.conditions import Condition
from soc.alerts.spans import in_words
from soc.core.severity import Severity
from soc.events import silence
from soc.events.flow import APPLICATION
from soc.events.models import Bot, BotDelay, StreamSettings

RULE = "clock"

SLOT = timedelta(minutes=5)
RECENT = timedelta(hours=1)
"""What is older says nothing about the present."""

SAMPLES = 5
"""The newest slots that a median is taken of, so that a clock that is set right soon counts."""

LEAST_SAMPLES = 3
"""Fewer may be one delivery that was held up."""

NOTICEABLE = timedelta(seconds=5)
"""Less is the way of an event from Windows to us."""


def slot(now: datetime) -> datetime:
    """Return the beginning of the five minutes that a time lies in."""
    return now - timedelta(minutes=now.minute % 5, seconds=now.second, microseconds=now.microsecond)


def skews(now: datetime) -> dict[int, timedelta]:
    """Return by how much the events of each robot come after their time, by the robots' keys."""
    samples: dict[int, list[float]] = {}
    recent = BotDelay.objects.filter(slot__gt=now - RECENT, slot__lte=now).order_by("-slot")
    for bot, seconds in recent.values_list("bot_id", "seconds"):
        samples.setdefault(bot, []).append(seconds)
    return {
        bot: timedelta(seconds=median(found[:SAMPLES]))
        for bot, found in samples.items()
        if len(found) >= LEAST_SAMPLES
    }


def in_short(skew: timedelta | None) -> str:
    """Return how wrong a clock is, in words; nothing if it is right or unknown."""
    if skew is None or abs(skew) < NOTICEABLE:
        return ""
    return f"{in_words(abs(skew))} {'slow' if skew > timedelta() else 'ahead'}"


def conditions(bots: Iterable[Bot], now: datetime) -> Iterator[Condition]:
    """Yield how the clock of each robot is; one that sent too little stays as it was."""
    settings = StreamSettings.current()
    measured = skews(now)
    for bot in bots:
        if bot.pk in measured:
            yield _condition(bot, _alone(bot.pk, measured), settings, now)


def _alone(bot: int, measured: dict[int, timedelta]) -> timedelta:
    """Return the skew of one robot without the delay that the events of all have."""
    skew = measured[bot]
    others = [other for key, other in measured.items() if key != bot]
    shared = max(timedelta(), min(others, default=timedelta()))
    return skew - min(shared, max(timedelta(), skew))


def _condition(bot: Bot, skew: timedelta, settings: StreamSettings, now: datetime) -> Condition:
    severity = _severity(skew, settings)
    words = f"Its clock is {in_words(-skew)} ahead."
    if skew > timedelta():
        words = (
            f"Its events arrive {in_words(skew)} after their time: its clock is slow, or they "
            "are delivered late."
        )
    if severity == Severity.CRITICAL:
        words += " They count as stale: what it reports raises no alert."
    return Condition(
        application=APPLICATION,
        rule=RULE,
        subject=bot.host,
        severity=severity,
        observed_at=now,
        summary=f"{words} Check its time service: w32tm /query /status.",
        link=silence.page_of(bot.pk),
        site=bot.site.name if bot.site else "",
    )


def _severity(skew: timedelta, settings: StreamSettings) -> Severity:
    if abs(skew) < timedelta(seconds=settings.skew_seconds):
        return Severity.OK
    stale = skew >= timedelta(minutes=settings.stale_minutes)
    return Severity.CRITICAL if stale else Severity.WARNING
