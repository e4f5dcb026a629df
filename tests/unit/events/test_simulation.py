"""Simulated robots log what real ones do, at their pace, with the faults that are asked for."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from soc.events import shapes, simulation
from soc.events.publisher import EventPublisher
from soc.events.simulation import Activity, Faults, Play, robots, say_something
from soc.events.stream import _declare
from soc.runtime.celery import app

HEARTBEAT = Activity("heartbeat", 60, say_something)


def played(
    count: int, faults: str = "", bots: int = 4
) -> tuple[Play, list[simulation.SimulatedMessage]]:
    play = Play(robots(bots, 2), [HEARTBEAT], Faults.parse(faults), pace=1, seed=1)
    messages: list[simulation.SimulatedMessage] = []
    while len(messages) < count:
        messages += play.next(timezone.now())
    return play, messages


def test_every_event_of_both_generations_is_read() -> None:
    _, messages = played(100)
    events = [shapes.read(message.body) for message in messages]
    assert {event.host.partition(".")[0] for event in events} == {
        f"robot-0{n}" for n in range(1, 5)
    }
    assert len({event.digest for event in events}) == 100
    assert {json.loads(event.raw).get("type") for event in events} == {"wineventlog", None}
    strings = [message for message in messages if message.body.startswith(b'"')]
    assert len(strings) == 10


def test_robots_keep_the_pace() -> None:
    """Sixty an hour each: four robots log forty in ten minutes."""
    play, count = Play(robots(4, 2), [HEARTBEAT], Faults(), pace=1, seed=1), 0
    while play.due() < 600:
        count += len(play.next(timezone.now()))
    assert count == 40


def test_what_is_done_later_is_logged_later() -> None:
    def make(scene: simulation.Scene) -> list[simulation.Doing]:
        other = scene.robots[1]
        return [
            simulation.Doing(scene.actor, "P", "C", 1, "now"),
            simulation.Doing(other, "P", "C", 2, "later", after=5.0),
        ]

    play = Play(robots(2, 1)[:2], [Activity("pair", 1, make)], Faults(), pace=1, seed=1)
    first = play.due()
    assert [shapes.read(m.body).message for m in play.next(timezone.now())] == ["now"]
    times = []
    for _ in range(3):
        times.append(play.due())
        play.next(timezone.now())
    assert first + 5 in times


def test_faults_come_in_their_shares() -> None:
    play, messages = played(4000, "duplicate=0.1,malformed=0.05,stale=0.05")
    kinds = Counter(message.kind for message in messages)
    assert kinds == play.counts
    assert 300 < kinds["duplicate"] < 480
    assert 130 < kinds["malformed"] < 260
    assert 130 < kinds["stale"] < 260
    for message in messages:
        if message.kind == "malformed":
            with pytest.raises(shapes.Malformed):
                shapes.read(message.body)
        elif message.kind == "stale":
            assert timezone.now() - shapes.read(message.body).at > timedelta(hours=1)
    bodies = [message.body for message in messages if message.kind == "malformed"]
    assert len(set(bodies)) == len(bodies)


def test_the_first_robots_are_silent_and_a_share_of_turns_fails() -> None:
    failing: list[bool] = []

    def make(scene: simulation.Scene) -> list[simulation.Doing]:
        failing.append(scene.failing)
        return list(say_something(scene))

    faults = Faults.parse("silent=2,fail=0.5")
    play = Play(robots(4, 2), [Activity("x", 60, make)], faults, pace=1, seed=1)
    hosts = {
        shapes.read(message.body).host.partition(".")[0]
        for _ in range(400)
        for message in play.next(timezone.now())
    }
    assert hosts == {"robot-03", "robot-04"}
    assert 120 < sum(failing) < 280


@pytest.mark.parametrize("text", ["silence=1", "fail=2", "stale=x", "duplicate=-1"])
def test_a_fault_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(CommandError, match="--faults"):
        call_command("events", "simulate", f"--faults={text}")


def test_the_command_publishes_and_tells_what(capsys: pytest.CaptureFixture[str]) -> None:
    (Path(app.conf.broker_transport_options["data_folder_in"])).mkdir(exist_ok=True)
    call_command("events", "simulate", "--hurry", "--events=20", "--only=heartbeat")
    told = capsys.readouterr()
    published = json.loads(told.out)
    assert published["good"] == published["confirmed"] == 20
    assert "20 sent, 20 confirmed" in told.err
    with app.connection_for_read() as link, link.channel() as channel:
        _declare(link)
        bodies = [channel.basic_get("events", no_ack=True).body for _ in range(20)]
    assert len({shapes.read(body).digest for body in bodies}) == 20


def test_what_was_not_confirmed_is_sent_again_in_its_order() -> None:
    publisher = EventPublisher(Path("/nowhere"), lambda _: None)
    publisher._waiting.extend([(1, b"a"), (2, b"b"), (3, b"c")])
    publisher._unsent.append(b"d")
    publisher._on_ack(2, multiple=False)
    publisher._lose()
    assert list(publisher._unsent) == [b"a", b"c", b"d"]
    assert (publisher.confirmed, publisher.resent) == (1, 2)


def test_what_the_broker_refuses_or_cannot_place_is_sent_again() -> None:
    class Returned:
        body = b"c"

    publisher = EventPublisher(Path("/nowhere"), lambda _: None)
    publisher._waiting.extend([(1, b"a"), (2, b"b"), (3, b"c")])
    publisher._on_nack(2, multiple=True)
    publisher._on_return(None, "logstash", "logstash", Returned())
    publisher._on_ack(3, multiple=True)
    assert list(publisher._unsent) == [b"a", b"b", b"c"]
    assert publisher.confirmed == 0
