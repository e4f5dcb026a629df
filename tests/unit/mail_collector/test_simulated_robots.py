"""What the simulator's robots do is read, paired and watched as real robots' events are."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from robots import fired, open_alerts
from soc.events import shapes, simulation
from soc.logons.models import LogonEvent
from soc.mail_collector.models import Delivery, Mailbox, MailEvent, Route

if TYPE_CHECKING:
    from robots import Stream

BOT, SITE, CLUSTER = "mail_collector/bot", "mail_collector/site", "logons/cluster"


def play(stream: Stream, minutes: int, *only: str, **faults: float) -> None:
    """Let four robots play at their natural pace, and look every minute."""
    what = [one for one in simulation.activities() if one.kind in (only or ("mail", "logon"))]
    # Another seed for each play: their records have other numbers.
    seed = next(stream.records)
    playing = simulation.Play(simulation.robots(4, 2), what, simulation.Faults(**faults), 1.0, seed)
    start = stream.clock.now
    for minute in range(1, minutes + 1):
        bodies = []
        while playing.due() < minute * 60:
            stream.clock.now = max(stream.clock.now, start + timedelta(seconds=playing.due()))
            bodies += [message.body for message in playing.next(stream.clock.now)]
        stream.ingest.take([shapes.read(body) for body in bodies])
        stream.clock.now = max(stream.clock.now, start + timedelta(minutes=minute))
        stream.watch()


def test_simulated_robots_are_well_unless_they_are_told_not_to_be(stream: Stream) -> None:
    stream.place("north", "robot-01", "robot-03")
    stream.place("west", "robot-02", "robot-04")
    play(stream, 12)
    assert open_alerts() == []
    assert MailEvent.objects.exists()
    assert not LogonEvent.objects.exclude(state="succeeded").exists()
    assert not LogonEvent.objects.filter(response_ms=None).exists()
    assert Delivery.objects.exclude(sent_at=None).exclude(received_at=None).count() > 10
    assert not Mailbox.objects.filter(server="").exists()
    assert Route.objects.exclude(verified_at=None).count() == 4


def test_a_simulated_silence_and_a_cluster_are_told_once_and_end(stream: Stream) -> None:
    stream.place("north", "robot-01", "robot-02")
    stream.place("west", "robot-03", "robot-04")
    play(stream, 2)
    play(stream, 21, silent=1)
    assert f"{BOT}: robot-01" in open_alerts()
    play(stream, 4)
    assert open_alerts() == []
    play(stream, 22, silent=2)
    assert f"{SITE}: north" in open_alerts()
    play(stream, 5)
    assert open_alerts() == []
    play(stream, 10, "logon", fail=1)
    assert f"{CLUSTER}: failed logons" in open_alerts()
    assert (fired(BOT), fired(SITE), fired(CLUSTER)) == (["robot-01"], ["north"], ["failed logons"])
