"""The worker's step: what it acknowledges, refuses, holds and takes alone."""

from __future__ import annotations

import gzip
import json
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from django.db import OperationalError
from kombu import Exchange

from harness import wait_for
from soc.events import dead, stream
from soc.events.bodies import Malformed
from soc.events.ingest import Ingest, IngestCounts, Refusal, Taken
from soc.events.mappings import Mappings
from soc.events.shippers import ShipperLog
from soc.runtime.celery import app
from winlogbeat import body, of_6

GOOD = body(of_6())


def taking(made: stream.Intake) -> Any:
    """Return what the session of events does with a delivery."""
    return partial(made._take, made._events)


class Channel:
    """A channel that notes what it is told, and how often each delivery tag is settled."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.waiting: set[int] = set()
        self.settles: Counter[int] = Counter()

    def basic_ack(self, tag: int, multiple: bool = False) -> None:
        self.told.append(("basic_ack", tag))
        self._settle({known for known in self.waiting if known <= tag} if multiple else {tag}, tag)

    def basic_reject(self, tag: int, requeue: bool) -> None:
        self.told.append(("basic_reject", tag))
        self._settle({tag}, tag)

    def _settle(self, tags: set[int], named: int) -> None:
        """Settle as the broker does, which closes the channel if the tag named does not wait."""
        self.settles.update(tags | {named})
        self.waiting -= tags

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **options: self.told.append((name, *arguments))


class Message:
    """A message as py-amqp delivers it."""

    def __init__(self, tag: int, text: bytes = GOOD, headers: dict[str, Any] | None = None) -> None:
        self.delivery_tag, self.body, self.headers = tag, text, headers
        self.delivery_info = {"exchange": "shipper.one", "routing_key": "logstash"}


class Link:
    """A connection that delivers given messages, then waits."""

    def __init__(self) -> None:
        self.channels: list[Channel] = []
        self.coming: list[Any] = []
        self.ticks = 0

    def connect(self) -> None:
        pass

    def channel(self) -> Channel:
        self.channels.append(Channel())
        return self.channels[-1]

    def drain_events(self, timeout: float) -> None:
        if not self.coming:
            time.sleep(0.001)
            raise TimeoutError
        deliver, message = self.coming.pop(0)
        self.channels[-1].waiting.add(message.delivery_tag)
        deliver(message)

    def heartbeat_check(self) -> None:
        self.ticks += 1


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch, settings: Any) -> list[list[Any]]:
    """The batches that were stored; a message that is no event is refused."""
    settings.EMBEDDED = False
    monkeypatch.setattr(dead, "keep", lambda letters: None)
    monkeypatch.setattr(Mappings, "_refresh", lambda _: None)
    monkeypatch.setattr(ShipperLog, "note", lambda *_: None)
    batches: list[list[Any]] = []

    def take(_: Ingest, events: list[Any]) -> Taken:
        batches.append(list(events))
        bad = [
            Refusal(place, "bad")
            for place, event in enumerate(events)
            if isinstance(event, Malformed)
        ]
        return Taken(IngestCounts(), bad)

    monkeypatch.setattr(Ingest, "take", take)
    return batches


@pytest.fixture
def intake(stored: list[list[Any]]) -> Iterator[tuple[stream.Intake, Link]]:
    """An intake whose loop the test turns, with a writer that runs."""
    made, link = stream.Intake(app), Link()
    made._writer.start()
    made._begin(link)
    yield made, link
    made._writer.give_up()
    made._writer.todo.put(None)
    made._writer.join(5)


def turn_until(made: stream.Intake, link: Link, what: str, done: Any) -> None:
    def turned() -> bool:
        made._turn(link)
        return done()

    end = time.monotonic() + 10
    while not turned():
        assert time.monotonic() < end, what


def widen(made: stream.Intake, link: Link) -> None:
    link.coming = [(taking(made), Message(1))]
    turn_until(made, link, "a wide window", lambda: made._wide)


def drain(made: stream.Intake, link: Link) -> None:
    """Take all that comes, however slow the machine is."""
    while link.coming:
        made._drain(link)


def told(link: Link, name: str) -> list[tuple[Any, ...]]:
    return [call[1:] for call in link.channels[1].told if call[0] == name]


def test_the_first_message_is_taken_alone_then_many_at_a_time(
    intake: tuple[stream.Intake, Link], stored: list[list[Any]]
) -> None:
    made, link = intake
    assert told(link, "basic_qos") == [(0, 1, False)]
    widen(made, link)
    assert told(link, "basic_qos") == [(0, 1, False), (0, stream.PREFETCH, False)]
    link.coming = [(taking(made), Message(tag)) for tag in range(2, 702)]
    turn_until(made, link, "all acknowledged", lambda: (701,) in told(link, "basic_ack"))
    assert [len(batch) for batch in stored] == [1, 500, 200]
    assert told(link, "basic_ack") == [(1,), (501,), (701,)]


def test_a_suspect_is_taken_alone_until_a_message_comes_that_is_none(
    intake: tuple[stream.Intake, Link], stored: list[list[Any]]
) -> None:
    made, link = intake
    suspects = [Message(tag, headers={"x-delivery-count": stream.SUSPECT}) for tag in (1, 2)]
    for suspect in suspects:
        link.coming = [(taking(made), suspect)]
        tag = (suspect.delivery_tag,)
        turn_until(made, link, "it to be stored", lambda t=tag: t in told(link, "basic_ack"))
        assert not made._wide
    link.coming = [(taking(made), Message(3, headers={"x-delivery-count": 1}))]
    turn_until(made, link, "a wide window", lambda: made._wide)
    assert [len(batch) for batch in stored][:2] == [1, 1]


@pytest.mark.parametrize(
    "texts",
    [
        [b"!"],
        [GOOD, b"!"],
        [b"!", GOOD],
        [GOOD, b"!", GOOD, b"!", GOOD],
        [b"!"] * 700,
        [GOOD, *[b"!"] * 9] * 70,
    ],
    ids=["one", "last", "first", "between", "all", "most"],
)
def test_each_delivery_is_settled_once_wherever_the_malformed_ones_stand(
    intake: tuple[stream.Intake, Link], monkeypatch: pytest.MonkeyPatch, texts: list[bytes]
) -> None:
    made, link = intake
    widen(made, link)
    kept: list[dead.Dead] = []
    monkeypatch.setattr(dead, "keep", kept.extend)
    link.coming = [(taking(made), Message(tag, text)) for tag, text in enumerate(texts, 2)]
    channel = link.channels[1]
    turn_until(made, link, "all settled", lambda: not link.coming and not channel.waiting)
    assert channel.settles == dict.fromkeys(range(1, len(texts) + 2), 1)
    assert kept == [dead.Dead(b"!", "bad")] * texts.count(b"!")


def test_a_dead_letter_is_stored_before_its_message_is_acknowledged(
    intake: tuple[stream.Intake, Link], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, link = intake
    widen(made, link)
    turn_until(made, link, "the first stored", lambda: (1,) in told(link, "basic_ack"))
    tries: list[int] = []

    def keep(letters: list[dead.Dead]) -> None:
        tries.append(len(told(link, "basic_ack")))
        if len(tries) < 3:
            raise OperationalError(2006, "gone away")

    monkeypatch.setattr(dead, "keep", keep)
    monkeypatch.setattr(stream, "PAUSES", (0.0,))
    link.coming = [(taking(made), Message(2, b"!"))]
    turn_until(made, link, "it to be settled", lambda: (2,) in told(link, "basic_ack"))
    assert tries == [1, 1, 1]


def test_messages_are_held_while_the_database_is_away_and_heartbeats_go_on(
    intake: tuple[stream.Intake, Link], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, link = intake
    widen(made, link)
    turn_until(made, link, "the first stored", lambda: (1,) in told(link, "basic_ack"))
    tries: list[int] = []
    works = Ingest.take

    def take(ingest: Ingest, events: list[Any]) -> Taken:
        tries.append(len(events))
        if len(tries) < 4:
            raise OperationalError(2006, "gone away")
        return works(ingest, events)

    monkeypatch.setattr(Ingest, "take", take)
    monkeypatch.setattr(stream, "PAUSES", (0.5,))
    monkeypatch.setattr(stream, "TICK", 0.1)
    link.coming = [(taking(made), Message(2))]
    before = link.ticks
    turn_until(made, link, "it to be stored", lambda: (2,) in told(link, "basic_ack"))
    assert tries == [1, 1, 1, 1]
    assert link.ticks - before >= 5


def test_nothing_more_is_read_while_too_much_is_held(
    intake: tuple[stream.Intake, Link], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, link = intake
    widen(made, link)
    monkeypatch.setattr(stream, "MOST_HELD", 1000)
    made._held = 5000
    link.connection = Channel()
    link.coming = [(taking(made), Message(2))]
    made._ticked_at = 0.0
    made._turn(link)
    assert len(link.coming) == 1
    assert link.connection.told == [("send_heartbeat",)]


def test_a_large_batch_is_written_before_it_is_full(
    intake: tuple[stream.Intake, Link], stored: list[list[Any]]
) -> None:
    made, link = intake
    widen(made, link)
    large = GOOD + b" " * (stream.MOST_BYTES // 2)
    link.coming = [(taking(made), Message(tag, large)) for tag in range(2, 8)]
    turn_until(made, link, "all settled", lambda: (7,) in told(link, "basic_ack"))
    assert [len(batch) for batch in stored] == [1, 2, 2, 2]


def test_events_count_and_not_the_messages_that_they_are_packed_in(
    intake: tuple[stream.Intake, Link], stored: list[list[Any]]
) -> None:
    made, link = intake
    widen(made, link)
    many = b"\n".join([GOOD] * (stream.BATCH // 2))
    large = gzip.compress(body(of_6(message="a" * (stream.MOST_BYTES // 5))))
    messages = [many] * 4 + [large] * 10
    link.coming = [(taking(made), Message(tag, text)) for tag, text in enumerate(messages, 2)]
    turn_until(made, link, "all settled", lambda: (15,) in told(link, "basic_ack"))
    assert [len(batch) for batch in stored] == [1, stream.BATCH, stream.BATCH, 5, 5]


def test_what_a_lost_connection_has_brought_is_not_acknowledged_on_the_next(
    intake: tuple[stream.Intake, Link],
) -> None:
    made, link = intake
    widen(made, link)
    link.coming = [(taking(made), Message(tag)) for tag in range(2, 10)]
    drain(made, link)
    made._forget()
    assert not made.is_consuming
    other = Link()
    made._begin(other)
    other.coming = [(taking(made), Message(1))]
    turn_until(made, other, "the first stored", lambda: (1,) in told(other, "basic_ack"))
    assert told(link, "basic_ack") in ([], [(1,)])


def test_a_worker_that_is_told_to_stop_writes_what_it_holds(
    intake: tuple[stream.Intake, Link], stored: list[list[Any]]
) -> None:
    made, link = intake
    widen(made, link)
    link.coming = [(taking(made), Message(tag)) for tag in range(2, 52)]
    drain(made, link)
    made._finish(link)
    assert sum(map(len, stored)) == 51
    assert told(link, "basic_cancel") == [("events",), ("events",)]
    assert told(link, "basic_ack")[-1] == (51,)


@pytest.mark.usefixtures("transactional_db")  # another thread writes
def test_the_file_broker_works_too(settings: Any) -> None:
    """The embedded stack: malformed messages become dead letters without the broker's help."""
    from soc.events.models import DeadLetter, Event, EventSource

    EventSource.objects.create(provider="Test Robot", channel="Application", allowed=True)
    exchange = Exchange("logstash", type="topic")
    (settings.STATE / "broker").mkdir(exist_ok=True)
    with app.connection_for_write() as link:
        stream._declare(link)
        producer = link.Producer()
        for text in (body(of_6()), b"{", json.dumps(body(of_6(record_number="2")).decode())):
            producer.publish(text, exchange=exchange, routing_key="logstash")
    intake = stream.Intake(app)
    intake.start()
    try:
        wait_for("the events", lambda: Event.objects.count() == 2)
        wait_for("the dead letter", lambda: DeadLetter.objects.count() == 1)
        assert intake.is_consuming
    finally:
        intake.stop()
    assert not intake.is_alive()
