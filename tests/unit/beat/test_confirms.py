"""Confirms, refusals and a lost broker: a publisher on a channel whose other end is the test."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import celery
import pytest
from kombu import Connection, Producer

from soc.beat.dispatch import RESEND_EVERY, Dispatcher
from soc.beat.plan import Entry, Run
from soc.beat.publish import Publisher
from soc.beat.rows import Message
from soc.beat.status import Counts
from soc.beat.timing import SECOND, Clocked

NOW = 1_700_000_000 * SECOND
EITHER = pytest.mark.parametrize("early", [True, False], ids=["at most once", "at least once"])


class Broker:
    """The other end: it keeps the ids of what it gets, and is there or not."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.is_gone = False

    def take(self, message: str, **_: Any) -> None:
        if self.is_gone:
            raise ConnectionResetError("gone")
        self.ids.append(message)


class Spoken(Publisher):
    """A publisher that owes its confirms to what the test has the broker say."""

    broker: Broker

    def _open(self, connection: Connection) -> None:
        if self.broker.is_gone:
            raise ConnectionRefusedError("gone")
        self._connection = connection
        self._channel = connection.channel()
        self._channel.prepare_message = lambda *arguments: arguments[-1]["correlation_id"]
        self._channel.basic_publish = partial(self._publish, self.broker.take)
        self._producer = Producer(self._channel, auto_declare=False)


class Desk:
    """A dispatcher with one run, and what became of it."""

    def __init__(self, app: celery.Celery, *, early: bool) -> None:
        self.publisher = Spoken(app, 1, None)
        self.broker = self.publisher.broker = Broker()
        self.counts = Counts()
        self.dispatcher = Dispatcher(self.publisher, self.counts)
        message = Message(
            "row", "t", "[]", "{}", None, None, None, "{}", None, None, expire_seconds=None
        )
        self.entry = Entry(1, Clocked(NOW), created=NOW, early=early, message=message)
        self.run = Run(self.entry, NOW, None)
        self.dispatcher.push([self.run])
        self.clock = 0.0

    def work(self) -> list[str]:
        """Return the problems of the runs that are done."""
        self.clock += 2 * RESEND_EVERY
        self.publisher._retry_at = 0.0
        results = self.dispatcher.work(NOW, self.clock, {1: self.entry})
        return [result.problem for result in results]


@pytest.fixture
def app() -> Iterator[celery.Celery]:
    made = celery.Celery("confirms", broker="memory://confirms", set_as_current=False)
    made.conf.task_ignore_result = True
    yield made
    made.close()


@EITHER
def test_a_run_is_done_when_it_is_confirmed_and_not_before(app: celery.Celery, early: bool) -> None:
    desk = Desk(app, early=early)
    assert desk.work() == []
    assert desk.publisher.waits
    desk.publisher._on_ack(1, False)
    assert desk.work() == [""]
    assert (desk.counts.published, desk.counts.lost, len(desk.broker.ids)) == (1, 0, 1)


def test_one_confirm_may_stand_for_many(app: celery.Celery) -> None:
    desk = Desk(app, early=True)
    desk.dispatcher.push([Run(desk.entry, NOW - SECOND, None), Run(desk.entry, NOW, None)])
    desk.work()
    desk.publisher._on_ack(2, True)
    assert desk.work() == ["", ""]
    assert desk.publisher.waits


@pytest.mark.parametrize("trouble", ["refused", "returned", "connection lost"])
def test_a_message_that_is_not_taken_is_lost_where_it_goes_at_most_once(
    app: celery.Celery, trouble: str
) -> None:
    desk = Desk(app, early=True)
    desk.work()
    happen(desk, trouble)
    assert len(desk.work()) == 1
    assert (desk.counts.published, desk.counts.lost, len(desk.broker.ids)) == (0, 1, 1)
    assert desk.dispatcher.take_back() == []


@pytest.mark.parametrize("trouble", ["refused", "returned", "connection lost"])
def test_a_message_that_is_not_taken_goes_again_with_its_id_where_at_least_once(
    app: celery.Celery, trouble: str
) -> None:
    desk = Desk(app, early=False)
    desk.work()
    happen(desk, trouble)
    assert desk.work() == []
    assert desk.work() == []
    assert desk.broker.ids == [desk.publisher.task_id(desk.run)] * 2
    desk.publisher._on_ack(desk.publisher._tag, False)
    assert desk.work() == [""]
    assert (desk.counts.published, desk.counts.lost) == (1, 0)


def happen(desk: Desk, trouble: str) -> None:
    """Have the broker refuse the first message, return it, or vanish."""
    if trouble == "refused":
        desk.publisher._on_nack(1, False)
    elif trouble == "returned":
        properties = {"correlation_id": desk.broker.ids[0]}
        desk.publisher._on_return(
            Exception("NO_ROUTE"), "celery", "nowhere", SimpleNamespace(properties=properties)
        )
        # RabbitMQ confirms what it has returned.
        desk.publisher._on_ack(1, False)
    else:
        desk.publisher._lose("gone")


@EITHER
def test_what_is_due_while_the_broker_takes_nothing_waits_and_goes_once(
    app: celery.Celery, early: bool
) -> None:
    desk = Desk(app, early=early)
    assert desk.publisher.ready()
    desk.publisher._set_blocked(True)
    assert desk.publisher.blocked_since is not None
    assert desk.work() == []
    assert desk.work() == []
    assert desk.broker.ids == []
    desk.publisher._set_blocked(False)
    assert desk.publisher.blocked_since is None
    desk.work()
    assert desk.broker.ids == [desk.publisher.task_id(desk.run)]


@EITHER
def test_what_is_due_without_a_broker_waits_and_goes_once(app: celery.Celery, early: bool) -> None:
    desk = Desk(app, early=early)
    desk.broker.is_gone = True
    assert desk.work() == []
    desk.broker.is_gone = False
    desk.work()
    assert desk.broker.ids == [desk.publisher.task_id(desk.run)]


@EITHER
def test_a_run_whose_queue_cannot_be_declared_for_a_lost_broker_goes_once(
    app: celery.Celery, early: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ConnectionResetError("gone")

    desk = Desk(app, early=early)
    with monkeypatch.context() as away:
        away.setattr("soc.beat.publish.maybe_declare", fail)
        assert desk.work() == []
    assert desk.broker.ids == []
    desk.work()
    assert desk.broker.ids == [desk.publisher.task_id(desk.run)]
    assert desk.counts.lost == 0


@EITHER
def test_the_end_gives_back_what_was_not_sent_and_connects_no_more(
    app: celery.Celery, early: bool
) -> None:
    desk = Desk(app, early=early)
    desk.publisher.connects = False
    assert desk.work() == []
    desk.publisher.close(0)
    assert desk.dispatcher.take_back() == [desk.run]
    assert desk.broker.ids == []


def test_what_was_not_confirmed_until_the_end_is_counted_as_lost(app: celery.Celery) -> None:
    desk = Desk(app, early=True)
    desk.work()
    desk.publisher.close(0)
    assert desk.work() == ["not confirmed: beat was stopped"]
    assert desk.counts.lost == 1
