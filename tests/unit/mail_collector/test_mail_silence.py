"""Silence of robots, sites and of the whole stream: each is told once, and its end as well."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from robots import fired, open_alerts
from soc.alerts.models import OPEN, Alert
from soc.core.severity import Severity
from soc.events.models import Bot, StreamSettings
from soc.mail_collector.models import MailSettings

if TYPE_CHECKING:
    from robots import Stream

BOT, SITE = "mail_collector/bot", "mail_collector/site"
CLOCK = "events/clock"
HOUR = timedelta(hours=1)


def saying(stream: Stream, *hosts: str) -> Callable[[], None]:
    """Return what the robots of these hosts do each time: check their connection."""

    def say() -> None:
        for host in hosts:
            stream.mail(host)

    return say


def test_a_silent_robot_is_a_warning_then_critical_and_resolves(stream: Stream) -> None:
    stream.place("north", "a1", "a2")
    stream.run(saying(stream, "a1", "a2", "other"), minutes=8)
    stream.run(saying(stream, "a2", "other"), minutes=16)
    assert open_alerts() == []
    stream.run(saying(stream, "a2", "other"), minutes=4)
    assert open_alerts() == [f"{BOT}: a1"]
    alert = Alert.objects.get(OPEN)
    assert (alert.severity, alert.site) == (Severity.WARNING, "north")
    assert alert.summary == "Nothing for 20 min."
    stream.run(saying(stream, "a2", "other"), minutes=20)
    alert.refresh_from_db()
    assert alert.severity == Severity.CRITICAL
    stream.run(saying(stream, "a1", "a2", "other"), minutes=4)
    assert open_alerts() == []
    assert fired(BOT) == ["a1"]


def test_a_site_is_silent_only_when_all_its_robots_are(stream: Stream) -> None:
    stream.place("north", "a1", "a2", "a3")
    stream.run(saying(stream, "a1", "a2", "a3", "other"), minutes=8)
    stream.run(saying(stream, "other"), minutes=20)
    assert open_alerts() == [f"{SITE}: north"]
    assert fired(BOT) == []
    assert "all its 3 robots" in Alert.objects.get(OPEN, rule__name="site").summary


def test_no_robot_is_told_before_the_site_that_it_fell_silent_with(stream: Stream) -> None:
    stream.place("north", "a1", "a2")
    stream.run(saying(stream, "a1", "a2", "other"), minutes=8)
    stream.run(saying(stream, "a2", "other"), minutes=4)
    stream.run(saying(stream, "other"), minutes=20)
    assert open_alerts() == [f"{SITE}: north"]
    assert fired(BOT) == []


def test_a_robot_that_fell_silent_long_before_its_site_is_told_first(stream: Stream) -> None:
    stream.place("north", "a1", "a2")
    stream.run(saying(stream, "a1", "a2", "other"), minutes=8)
    stream.run(saying(stream, "a2", "other"), minutes=8)
    stream.run(saying(stream, "other"), minutes=12)
    assert open_alerts() == [f"{BOT}: a1"]


def test_the_robots_of_a_site_come_back_one_by_one_without_a_sound(stream: Stream) -> None:
    stream.place("north", "a1", "a2", "a3")
    stream.run(saying(stream, "a1", "a2", "a3", "other"), minutes=8)
    stream.run(saying(stream, "other"), minutes=20)
    stream.run(saying(stream, "other", "a1"), minutes=4)
    stream.run(saying(stream, "other", "a1", "a2"), minutes=4)
    stream.run(saying(stream, "other", "a1", "a2", "a3"), minutes=8)
    assert not Alert.objects.filter(OPEN).exists()
    assert (fired(SITE), fired(BOT)) == (["north"], [])


def test_a_silence_beyond_a_short_limit_is_not_put_down_to_the_site(stream: Stream) -> None:
    """The limit is below what robots of a site may be apart."""
    MailSettings.objects.update(bot_warning=timedelta(minutes=3))
    stream.place("north", "a1", "a2")
    stream.run(saying(stream, "a1", "a2", "other"), minutes=8)
    stream.run(saying(stream, "a2", "other"), minutes=4)
    assert open_alerts() == [f"{BOT}: a1"]


def test_what_a_clock_that_was_ahead_has_heard_is_heard_now(stream: Stream) -> None:
    stream.place("north", "a1", "a2")
    everybody = saying(stream, "a1", "a2", "other")
    stream.run(everybody, minutes=8)
    stream.clock.move(days=1)
    stream.run(everybody, minutes=4)
    stream.clock.move(days=-1)
    stream.run(saying(stream, "other"), minutes=24)
    assert open_alerts() == [f"{SITE}: north"]
    stream.run(lambda: None, minutes=8)
    assert open_alerts() == [f"{SITE}: north", "events/stream: event stream"]


def test_a_robot_that_stays_silent_when_its_site_is_back_is_told(stream: Stream) -> None:
    stream.place("north", "a1", "a2")
    stream.run(saying(stream, "a1", "a2", "other"), minutes=8)
    stream.run(saying(stream, "other"), minutes=20)
    stream.run(saying(stream, "other", "a1"), minutes=12)
    assert open_alerts() == [f"{BOT}: a2"]


def test_a_silent_stream_is_one_alert_and_no_robot_is_called_silent(stream: Stream) -> None:
    stream.place("north", "a1", "a2")
    stream.run(saying(stream, "a1", "a2", "other"), minutes=8)
    stream.run(lambda: None, hours=2)
    assert open_alerts() == ["events/stream: event stream"]
    # Back again, every robot has its whole time to be heard of.
    stream.run(saying(stream, "other"), minutes=20)
    assert open_alerts() == []
    assert fired("events/stream") == ["event stream"]
    stream.run(saying(stream, "other"), minutes=4)
    assert open_alerts() == [f"{SITE}: north"]


def test_a_backlog_that_is_worked_off_calls_nobody_silent(stream: Stream) -> None:
    """Six hours of events come at once, robot by robot, in the time of a few looks."""
    stream.place("north", "a1", "a2")
    stream.run(saying(stream, "a1", "a2", "other"), minutes=8)
    stream.clock.move(hours=6)
    stream.watch()
    for host in ("other", "a1", "a2"):
        for hours in range(6, -1, -1):
            stream.mail(host, ago=timedelta(hours=hours))
            stream.mail(host, "send", "FAIL", ago=timedelta(hours=hours, minutes=31))
        stream.watch()
    assert (fired(BOT), fired(SITE), fired("mail_collector/check")) == ([], [], [])


def test_a_stream_that_is_late_is_judged_by_its_own_time(stream: Stream) -> None:
    """Everything comes 20 minutes late: nothing is silent that was not."""
    StreamSettings.objects.update(silent_minutes=25)
    stream.place("north", "a1")
    late = timedelta(minutes=20)
    stream.run(lambda: [stream.mail(host, ago=late) for host in ("a1", "other")], minutes=28)
    stream.run(lambda: stream.mail("other", ago=late), minutes=16)
    assert open_alerts() == []
    stream.run(lambda: stream.mail("other", ago=late), minutes=4)
    assert open_alerts() == [f"{SITE}: north"]


def test_a_robot_whose_events_come_late_is_not_called_silent(stream: Stream) -> None:
    """A slow clock and a slow delivery look alike; the failed checks of either alert nobody."""
    stream.place("north", "a1", "a2")
    stream.run(saying(stream, "a1", "a2", "other"), minutes=8)

    def say() -> None:
        stream.mail("a2")
        stream.mail("other")
        stream.mail("a1", "send", "FAIL", ago=timedelta(minutes=31))

    stream.run(say, minutes=40)
    assert open_alerts() == [f"{CLOCK}: a1"]
    assert fired("mail_collector/check") == []


def test_a_disabled_robot_is_watched_no_more(stream: Stream) -> None:
    stream.place("north", "a1", "a2")
    stream.run(saying(stream, "a1", "a2", "other"), minutes=8)
    stream.run(saying(stream, "a2", "other"), minutes=20)
    assert open_alerts() == [f"{BOT}: a1"]
    Bot.objects.filter(host="a1").update(enabled=False)
    stream.run(saying(stream, "a2", "other"), minutes=4)
    assert open_alerts() == []
    stream.run(saying(stream, "other"), minutes=20)
    assert open_alerts() == [f"{SITE}: north"]


def test_a_robot_without_a_site_is_told_until_it_has_one(stream: Stream) -> None:
    stream.run(saying(stream, "stranger", "other"), minutes=4)
    assert open_alerts() == ["mail_collector/site-missing: stranger"]
    stream.place("north", "stranger")
    stream.run(saying(stream, "stranger", "other"), minutes=4)
    assert open_alerts() == []


def test_the_limits_are_two_and_six_hours_unless_somebody_sets_others() -> None:
    limits = MailSettings()
    assert (limits.bot_warning, limits.bot_critical) == (2 * HOUR, 6 * HOUR)
    assert (limits.server_warning, limits.server_critical) == (2 * HOUR, 6 * HOUR)
    assert limits.route_unverified == 6 * HOUR


def test_a_robot_that_was_entered_is_missed_before_its_first_event(stream: Stream) -> None:
    stream.place("north", "a1", "a2")
    Bot.objects.filter(host="a1").update(expected_minutes=30, created_at=stream.clock.now)
    stream.run(saying(stream, "other"), minutes=56)
    assert open_alerts() == []
    stream.run(saying(stream, "other"), minutes=8)
    assert open_alerts() == ["events/expected: a1"], "nobody has said that a2 is expected"
    stream.run(saying(stream, "a1", "other"), minutes=4)
    assert open_alerts() == []


def test_a_robot_has_limits_of_its_own_interval(stream: Stream) -> None:
    stream.place("north", "a1", "a2")
    stream.run(saying(stream, "a1", "a2", "other"), minutes=8)
    Bot.objects.filter(host="a2").update(expected_minutes=30)
    stream.run(saying(stream, "other"), minutes=32)
    assert open_alerts() == [f"{BOT}: a1"], "a2 may be silent for an hour, and so the site"
    stream.run(saying(stream, "other"), minutes=32)
    assert open_alerts() == [f"{BOT}: a1", f"{SITE}: north"]
