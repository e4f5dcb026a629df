"""Robots' clocks: measured by arrival, reported, and never taken for silence."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from django.utils import timezone

from robots import fired, open_alerts
from soc.alerts.models import OPEN, Alert
from soc.core.severity import Severity
from soc.events import clocks
from soc.events.models import Bot, BotDelay, StreamSettings
from soc.mail_collector.models import MailSettings

if TYPE_CHECKING:
    from robots import Stream

CLOCK, BOT = "events/clock", "mail_collector/bot"


def run(stream: Stream, minutes: int, **ago: float) -> None:
    """Have `other`, whose clock is right, and robots that are so many minutes slow check mail."""

    def say() -> None:
        stream.mail("other")
        for host, slow in ago.items():
            stream.mail(host, ago=timedelta(minutes=slow))

    stream.run(say, minutes=minutes)


@pytest.mark.parametrize(
    ("slow", "severity", "words"),
    [
        (40, Severity.CRITICAL, "arrive 40 min after their time: its clock is slow"),
        (5, Severity.WARNING, "arrive 5 min after their time: its clock is slow"),
        (-90, Severity.WARNING, "Its clock is 1 h 30 min ahead."),
    ],
)
def test_a_wrong_clock_is_an_alert_of_its_own_until_it_is_right(
    stream: Stream, slow: float, severity: Severity, words: str
) -> None:
    stream.place("north", "a1")
    run(stream, 16, a1=slow)
    alert = Alert.objects.get(OPEN)
    assert (str(alert), alert.severity, alert.site) == (f"{CLOCK}: a1", severity, "north")
    assert words in alert.summary
    assert ("count as stale" in alert.summary) == (severity == Severity.CRITICAL)
    run(stream, 40, a1=0)
    assert open_alerts() == []
    assert fired(CLOCK) == ["a1"]


def test_a_slow_robot_is_silent_only_when_nothing_arrives(stream: Stream) -> None:
    MailSettings.objects.update(bot_warning=timedelta(minutes=10))
    stream.place("north", "a1", "a2")
    run(stream, 40, a1=40, a2=11)
    assert fired(BOT) == []
    run(stream, 16, a2=11)
    assert fired(BOT) == ["a1"]


def test_what_is_late_of_everybody_is_no_clock(stream: Stream) -> None:
    StreamSettings.objects.update(silent_minutes=25)
    stream.place("north", "a1", "a2")
    stream.run(
        lambda: [stream.mail(host, ago=timedelta(minutes=20)) for host in ("a1", "a2", "other")],
        minutes=40,
    )
    assert open_alerts() == []
    stream.run(
        lambda: [
            stream.mail(host, ago=timedelta(minutes=late))
            for host, late in (("a1", 20), ("a2", 29), ("other", 20))
        ],
        minutes=20,
    )
    assert open_alerts() == [f"{CLOCK}: a2"]


def test_one_delivery_that_was_held_up_is_no_clock(stream: Stream) -> None:
    stream.place("north", "a1")
    run(stream, 20, a1=0)
    run(stream, 4, a1=29)
    run(stream, 40, a1=0)
    assert fired(CLOCK) == []


def test_a_skew_is_the_median_of_the_newest_slots(stream: Stream) -> None:
    bot, now = Bot.objects.create(host="a1"), timezone.now()
    for number, seconds in enumerate((3, 900, 1, 2, 4, 50, 50, 50)):
        slot = clocks.slot(now) - number * clocks.SLOT
        BotDelay.objects.create(bot=bot, slot=slot, seconds=seconds)
    assert clocks.skews(now) == {bot.pk: timedelta(seconds=3)}
    assert clocks.skews(now + clocks.RECENT) == {}


def test_within_a_slot_the_promptest_event_counts(stream: Stream) -> None:
    for ago in (5, 1, 3):
        stream.mail("a1", ago=timedelta(minutes=ago))
    assert BotDelay.objects.get().seconds == pytest.approx(60, abs=1)


def test_a_robot_that_is_disabled_has_no_clock_to_watch(stream: Stream) -> None:
    stream.place("north", "a1")
    run(stream, 16, a1=9)
    assert open_alerts() == [f"{CLOCK}: a1"]
    Bot.objects.filter(host="a1").update(enabled=False)
    stream.watch()
    assert not Alert.objects.filter(OPEN).exists()
