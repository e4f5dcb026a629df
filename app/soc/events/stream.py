"""Empties the stream's queue inside a Celery worker, many messages at a time.

A step of the worker with a connection and two threads of its own: one talks to the broker and
never waits for the database, so that its heartbeats go on; one writes. Messages are acknowledged
after their batch is committed. While the database is away the messages in progress are held, no
more than the broker gives without an acknowledgement.
"""

import itertools
import logging
import queue
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from celery import Celery, bootsteps
from celery.worker import WorkController
from django.conf import settings
from django.db import Error, connection
from kombu import Connection, Exchange, Queue

from soc.events import dead, frames, shapes
from soc.events.ingest import Ingest
from soc.events.mappings import Mappings
from soc.events.shapes import Part
from soc.events.shippers import ShipperLog
from soc.runtime.queues import BY_NAME, STREAMS

BATCH = 500
PREFETCH = 2 * BATCH
FLUSH_AFTER = 0.2
"""Seconds that a message waits for others at most."""

MOST_BYTES = 4_000_000
"""Of one batch: far below what one statement to MariaDB may hold."""

MOST_HELD = 32_000_000
"""Bytes of all messages in progress, above which nothing is read from the broker."""

SUSPECT = 3
"""Deliveries of a message after which it is taken alone: it may be what its workers died of."""

POLL = 0.02
IDLE_POLL = 0.5
"""Seconds to wait for messages at a time, with work in progress and without."""

TICK = 1.0
"""Seconds between two looks at the heartbeats."""

PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds before the next try to reach the broker or the database; the last one from then on."""

LONGEST_END = 20.0
"""Seconds that a worker that is asked to stop may take to write what it holds."""

HUNG = 30.0
"""Seconds without a turn of the loop after which it counts as hung."""

QUEUE = BY_NAME["events"]
STREAM = STREAMS[QUEUE.name]

logger = logging.getLogger(__name__)


def pauses() -> itertools.chain[float]:
    """Return the pauses between tries, without end."""
    return itertools.chain(PAUSES, itertools.repeat(PAUSES[-1]))


class _Session:
    """A channel with a consumer of one queue; what it gets goes to ``deliver``."""

    def __init__(
        self, link: Connection, name: str, deliver: Callable[["_Session", Any], None]
    ) -> None:
        self.open = True
        self.channel = link.channel()
        self._name = name
        self._deliver = deliver

    def consume(self, prefetch: int) -> None:
        """Take messages, this many without an acknowledgement."""
        self.channel.basic_qos(0, prefetch, False)
        self.channel.basic_consume(
            self._name,
            no_ack=False,
            callback=partial(self._deliver, self),
            consumer_tag=self._name,
        )

    def cancel(self) -> None:
        """Take no more messages."""
        self.channel.basic_cancel(self._name)


@dataclass
class _Batch:
    """Messages of one session that are written together and then acknowledged."""

    session: _Session
    dead: bool
    messages: list[Any] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    exchanges: list[str] = field(default_factory=list)
    """Through which each part came."""
    size: int = 0
    since: float = field(default_factory=time.monotonic)

    @property
    def is_full(self) -> bool:
        """Whether it must be written now."""
        return max(len(self.messages), len(self.parts)) >= BATCH or self.size >= MOST_BYTES

    def settle(self) -> None:
        """Acknowledge the messages, the refused ones too: those are dead letters already.

        Each delivery tag is settled once: the broker closes a channel that names one again
        (AMQP 0-9-1, basic.ack, "precondition-failed").
        """
        channel = self.session.channel
        if settings.EMBEDDED:
            # The file broker acknowledges one at a time.
            for message in self.messages:
                channel.basic_ack(message.delivery_tag)
        else:
            channel.basic_ack(self.messages[-1].delivery_tag, multiple=True)


class _Writer(threading.Thread):
    """Writes batches one after the other, each until the database has taken it."""

    def __init__(self) -> None:
        super().__init__(name="events-writer", daemon=True)
        self.todo: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self.done: deque[_Batch] = deque()
        self._ingest = Ingest(socket.gethostname()[:64])
        self._mappings = Mappings()
        self._shippers = ShipperLog()
        self._given_up = threading.Event()

    def run(self) -> None:
        """Write until there is a None."""
        while (batch := self.todo.get()) is not None:
            self._write(batch)
            self.done.append(batch)
        connection.close()

    def give_up(self) -> None:
        """Wait for the database no longer."""
        self._given_up.set()

    def _write(self, batch: _Batch) -> None:
        """Write a batch, however long the database is away.

        A batch whose session has ended needs no more tries: the broker gives it to somebody again.
        """
        for pause in pauses():
            if not batch.session.open:
                return
            try:
                self._once(batch)
            except Error as error:
                logger.warning("%d messages wait for the database: %s", len(batch.messages), error)
            except Exception:
                logger.exception("%d messages cannot be written", len(batch.messages))
            else:
                return
            connection.close()
            if self._given_up.wait(pause):
                batch.session.open = False

    def _once(self, batch: _Batch) -> None:
        if batch.dead:
            dead.keep(
                [
                    dead.of_queue(m.body, m.headers or {}, m.delivery_info["routing_key"])
                    for m in batch.messages
                ]
            )
            return
        parts = self._mappings.applied(batch.parts)
        refusals = self._ingest.take([part.event for part in parts]).refusals
        self._shippers.note(batch.exchanges, parts, refusals)
        if not refusals:
            return
        text = "%d messages go to the dead letters; the first because %s"
        logger.warning(text, len(refusals), refusals[0].reason)
        dead.keep([dead.of(parts[place].body, reason) for place, reason in refusals])


class Intake(threading.Thread):
    """Takes messages from the broker, hands them to the writer and acknowledges them."""

    def __init__(self, app: Celery) -> None:
        super().__init__(name="events-intake", daemon=True)
        self._app = app
        self._stopping = threading.Event()
        self._writer = _Writer()
        self._turned_at = float("-inf")
        self._events: _Session | None = None
        self._dead: _Session | None = None
        self._batches: dict[bool, _Batch] = {}
        self._at_hand = 0
        self._held = 0
        self._wide = False
        self._may_widen = False

    @property
    def is_consuming(self) -> bool:
        """Whether the queue is consumed and the loop turns."""
        return self._events is not None and time.monotonic() - self._turned_at < HUNG

    def stop(self) -> None:
        """Take no more, write what is in progress, and end."""
        self._stopping.set()
        self.join()

    def run(self) -> None:
        """Consume until asked to stop, whatever becomes of the broker."""
        self._writer.start()
        tries = pauses()
        while not self._stopping.is_set():
            link = self._link()
            try:
                self._begin(link)
                tries = pauses()
                while not self._stopping.is_set():
                    self._turn(link)
                self._finish(link)
                link.release()
            except Exception as error:
                # Whatever it is, such as a message that cannot even be received: begin again.
                known = isinstance(error, (*link.connection_errors, *link.channel_errors))
                logger.warning("The stream's broker is lost: %s", error, exc_info=not known)
                # A farewell to a broker that is gone would be waited for.
                link.collect()
            finally:
                self._forget()
            self._stopping.wait(next(tries))
        self._writer.give_up()
        self._writer.todo.put(None)
        self._writer.join(LONGEST_END)

    def _link(self) -> Connection:
        transport = {} if settings.EMBEDDED else {"transport": frames.FrameTransport}
        link: Connection = self._app.connection_for_read(**transport)
        return link

    # --- One connection -------------------------------------------------------------------------

    def _begin(self, link: Connection) -> None:
        link.connect()
        self._ticked_at = 0.0
        if settings.EMBEDDED:
            _declare(link)
        else:
            self._dead = _Session(link, QUEUE.dead_letter_name, self._take_dead)
            self._dead.consume(BATCH)
        self._wide = self._may_widen = False
        self._events = events = _Session(link, QUEUE.name, self._take)
        # The first one alone: if it is what this worker's predecessors died of, the others must
        # not be parked with it.
        events.consume(1)
        logger.info("The stream's queue %s is consumed", QUEUE.name)

    def _forget(self) -> None:
        """Let go of everything that belongs to a connection that has ended."""
        for session in (self._events, self._dead):
            if session:
                session.open = False
        self._events = self._dead = None
        self._batches.clear()

    def _turn(self, link: Connection) -> None:
        self._turned_at = now = time.monotonic()
        if self._held < MOST_HELD:
            self._drain(link)
        else:
            time.sleep(POLL)
        self._settle()
        for batch in list(self._batches.values()):
            if batch.is_full or not self._wide or now - batch.since >= FLUSH_AFTER:
                self._hand_over(batch)
        if self._may_widen and not self._wide and self._events:
            self._wide = True
            self._events.cancel()
            self._events.consume(PREFETCH)
        if now - self._ticked_at >= TICK:
            self._ticked_at = now
            self._tick(link)

    def _drain(self, link: Connection) -> None:
        """Take what is there, for a moment or until a batch must be written."""
        busy = bool(self._batches or self._at_hand)
        until = time.monotonic() + POLL
        try:
            while True:
                link.drain_events(timeout=POLL if busy else IDLE_POLL)
                if not (busy and self._wide) or time.monotonic() >= until:
                    return
                if any(batch.is_full for batch in self._batches.values()):
                    return
        except TimeoutError:
            pass

    def _tick(self, link: Connection) -> None:
        if settings.EMBEDDED:
            return
        if self._held < MOST_HELD:
            link.heartbeat_check()
        else:
            # Nothing is read: only the broker must hear that we live.
            link.connection.send_heartbeat()

    def _take(self, session: _Session, message: Any) -> None:
        if not self._may_widen:
            count = (message.headers or {}).get("x-delivery-count", 0)
            self._may_widen = count < SUSPECT
        # Read here, because the writer waits for the database half of its time.
        parts = shapes.read_all(message.body)
        size = sum(part.size for part in parts)
        batch = self._add(session, message, size, dead=False)
        batch.parts.extend(parts)
        batch.exchanges.extend([message.delivery_info["exchange"]] * len(parts))

    def _take_dead(self, session: _Session, message: Any) -> None:
        self._add(session, message, len(message.body), dead=True)

    def _add(self, session: _Session, message: Any, size: int, *, dead: bool) -> _Batch:
        batch = self._batches.get(dead)
        if batch is None:
            batch = self._batches[dead] = _Batch(session, dead)
        batch.messages.append(message)
        batch.size += size
        return batch

    def _hand_over(self, batch: _Batch) -> None:
        del self._batches[batch.dead]
        self._at_hand += 1
        self._held += batch.size
        self._writer.todo.put(batch)

    def _settle(self) -> None:
        """Acknowledge what is written."""
        while self._writer.done:
            batch = self._writer.done.popleft()
            self._at_hand -= 1
            self._held -= batch.size
            if batch.session.open:
                batch.settle()

    def _finish(self, link: Connection) -> None:
        """Write and acknowledge what is in progress; what takes too long comes again."""
        for session in (self._events, self._dead):
            if session:
                session.cancel()
        for batch in list(self._batches.values()):
            self._hand_over(batch)
        end = time.monotonic() + LONGEST_END
        while self._at_hand and time.monotonic() < end:
            self._settle()
            self._tick(link)
            time.sleep(POLL)
        self._settle()


def _declare(link: Connection) -> None:
    """Make the queue of the file broker, which has no definitions."""
    exchange = Exchange(STREAM.exchange, type="topic")
    with link.channel() as channel:
        Queue(QUEUE.name, exchange, routing_key=STREAM.routing_key, channel=channel).declare()


class StreamStep(bootsteps.StartStopStep):
    """The step of a worker that empties the stream; it outlives the worker's own connection."""

    def __init__(self, worker: WorkController, **_: Any) -> None:
        worker.stream = None

    def start(self, worker: WorkController) -> None:
        """Begin to take messages."""
        worker.stream = Intake(worker.app)
        worker.stream.start()

    def stop(self, worker: WorkController) -> None:
        """Write what is in progress, and end."""
        worker.stream.stop()
