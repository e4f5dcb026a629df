"""From logons to alerts: silence, failures, slowness, clusters; each is told once and ends."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from django.test import Client

from robots import STEP, fired, open_alerts
from soc.alerts.models import OPEN, Alert, Rule
from soc.core.severity import Severity
from soc.events.models import Bot
from soc.logons.models import LogonEvent, LogonSettings
from soc.notify.models import OutboundMail, Subscription

if TYPE_CHECKING:
    from robots import Stream

ROBOTS = ("a1", "a2", "a3")
FAILURE_IDS = (1006, 1007, 1016, 1017)
SETTINGS = "/admin/logons/logonsettings/1/change/"


@pytest.fixture
def three(stream: Stream) -> Stream:
    """Three robots of a site that have logged on for a while."""
    stream.place("north", *ROBOTS)
    stream.run(all_is_well(stream), minutes=8)
    return stream


def all_is_well(stream: Stream, *but: str) -> Callable[[], None]:
    def say() -> None:
        for host in (*ROBOTS, "other"):
            if host not in but:
                stream.logon(host)

    return say


def fail_together(stream: Stream, count: int = 6) -> None:
    for number in range(count):
        host, event_id = ROBOTS[number % 3], FAILURE_IDS[number % 4]
        stream.logon(host, event_id=event_id, ago=timedelta(seconds=10 * number))


def test_a_silent_robot_is_told_after_ten_minutes_and_resolves(three: Stream) -> None:
    three.run(all_is_well(three, "a1"), minutes=8)
    assert open_alerts() == []
    three.run(all_is_well(three, "a1"), minutes=4)
    assert open_alerts() == ["logons/bot: a1"]
    three.run(all_is_well(three), minutes=4)
    assert open_alerts() == []
    assert fired("logons/bot") == ["a1"]


def test_a_silent_site_is_one_alert_and_resolves(three: Stream) -> None:
    three.run(all_is_well(three, *ROBOTS), minutes=12)
    assert open_alerts() == ["logons/site: north"]
    three.run(all_is_well(three), minutes=12)
    assert open_alerts() == []
    assert fired("logons/bot") == []


def test_two_failures_of_a_robot_are_told_and_one_is_not(three: Stream) -> None:
    three.logon("a1", event_id=1006)
    three.run(all_is_well(three), minutes=4)
    assert open_alerts() == []
    three.logon("a1", event_id=1004)
    three.watch()
    assert open_alerts() == ["logons/failures: a1"]
    facts = Alert.objects.get().facts
    assert facts == {"Event ids": "1006 (1), 1004 (1)", "Reasons": "It took too long. (2)"}
    three.run(all_is_well(three), minutes=12)
    assert open_alerts() == []


def test_a_robot_that_fails_and_falls_silent_is_not_called_well(three: Stream) -> None:
    for event_id in (1006, 1007):
        three.logon("a1", event_id=event_id)
    three.run(all_is_well(three, "a1"), minutes=16)
    assert open_alerts() == ["logons/failures: a1", "logons/bot: a1"]


def test_slow_logons_are_told_by_their_mean(three: Stream) -> None:
    three.logon("a1", seconds=19.5)
    three.watch()
    assert open_alerts() == []
    three.clock.now += STEP
    three.logon("a1", seconds=40)
    three.watch()
    assert open_alerts() == ["logons/slow: a1"]
    assert Alert.objects.get().summary == "A logon takes 17.4 s on average over 10 min."
    three.run(all_is_well(three), minutes=12)
    assert open_alerts() == []


def test_a_cluster_is_one_critical_alert_whatever_its_robots(three: Stream) -> None:
    Subscription.objects.create(name="ops", recipients="a@health.internal")
    fail_together(three)
    three.run(all_is_well(three), minutes=4)
    assert open_alerts() == ["logons/cluster: failed logons"]
    alert = Alert.objects.get()
    assert (alert.severity, alert.site) == (Severity.CRITICAL, "north")
    assert alert.summary == "6 logons of 3 robots failed close together."
    assert alert.facts["Robots"] == "a3 (2), a2 (2), a1 (2)"
    assert OutboundMail.objects.count() == 1
    three.run(all_is_well(three), minutes=4)
    assert open_alerts() == []
    three.run(all_is_well(three), minutes=12)
    assert Alert.objects.count() == 1


def test_where_clusters_are_not_told_their_robots_are(three: Stream) -> None:
    Rule.objects.filter(application="logons", name="cluster").update(enabled=False)
    fail_together(three)
    three.watch()
    assert open_alerts() == [f"logons/failures: {host}" for host in ROBOTS]


def test_a_cluster_takes_over_what_was_told_of_a_robot(three: Stream) -> None:
    for event_id in (1006, 1007):
        three.logon("a1", event_id=event_id)
    three.watch()
    assert open_alerts() == ["logons/failures: a1"]
    three.clock.move(minutes=1)
    fail_together(three, 3)
    three.watch()
    assert open_alerts() == ["logons/cluster: failed logons"]


def test_a_fourth_cluster_within_an_hour_is_not_told(three: Stream) -> None:
    for _ in range(5):
        fail_together(three)
        three.run(all_is_well(three), minutes=12)
    assert open_alerts() == []
    assert len(fired("logons/cluster")) == 3
    assert fired("logons/failures") == []
    three.run(all_is_well(three), minutes=12)
    fail_together(three)
    three.run(all_is_well(three), minutes=4)
    assert len(fired("logons/cluster")) == 4


def test_stale_logons_are_stored_and_alert_nobody(three: Stream) -> None:
    for number in range(10):
        late = timedelta(minutes=31, seconds=number)
        three.logon("a1", event_id=1006, ago=late)
        three.logon("a2", seconds=100, ago=late)
    three.logon("a3", ago=timedelta(minutes=31))
    three.run(all_is_well(three, "a3"), minutes=12)
    assert open_alerts() == ["logons/bot: a3"]
    assert Alert.objects.count() == 1
    assert LogonEvent.objects.filter(stale=True).count() == 21


def test_a_disabled_robots_failures_count_for_nothing(three: Stream) -> None:
    Bot.objects.filter(host="a1").update(enabled=False)
    for number in range(6):
        three.logon("a1", event_id=1006, ago=timedelta(seconds=number))
    three.watch()
    assert not Alert.objects.filter(OPEN).exists()


def test_the_limits_are_settings(three: Stream) -> None:
    LogonSettings.objects.update(
        failures=1, cluster=2, cluster_event_ids="1004", slow_above=timedelta(seconds=4)
    )
    three.logon("a1", event_id=1004)
    three.watch()
    assert "logons/failures: a1" in open_alerts()
    assert "logons/slow: a2" in open_alerts()
    three.clock.move(minutes=1)
    three.logon("a2", event_id=1004)
    three.watch()
    assert "logons/cluster: failed logons" in open_alerts()


def test_the_limits_are_as_agreed_unless_somebody_sets_others() -> None:
    limits = LogonSettings()
    assert (limits.silent_after, limits.slow_above) == (
        timedelta(minutes=10), timedelta(seconds=10)
    )  # fmt: skip
    assert (limits.failures, limits.failures_within) == (2, timedelta(minutes=10))
    assert (limits.cluster, limits.cluster_within) == (5, timedelta(minutes=5))
    assert limits.event_ids_of_clusters == set(FAILURE_IDS)
    assert limits.clusters_an_hour == 3


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("cluster_event_ids", "1006, x", "Not an event id: x"),
        ("cluster_event_ids", ",", "At least one event id"),
        ("silent_after", "0:00:00", "greater than or equal to"),
        ("cluster", "1", "greater than or equal to"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    browser: Client, field: str, value: str, words: str
) -> None:
    form = {
        "silent_after": "0:10:00", "failures": "2", "failures_within": "0:10:00",
        "slow_above": "0:00:10", "slow_within": "0:10:00", "cluster": "5",
        "cluster_within": "0:05:00", "cluster_event_ids": "1006", "clusters_an_hour": "3",
    }  # fmt: skip
    page = browser.post(SETTINGS, form | {field: value}, secure=True)
    assert page.status_code == 200
    assert words in page.content.decode()
    assert browser.post(SETTINGS, form, secure=True).status_code == 302
