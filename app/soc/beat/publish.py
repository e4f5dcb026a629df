"""The way to the broker: one connection, and confirms that nobody waits for one by one."""

import contextlib
import logging
import select
import ssl
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

import amqp
import celery
from django.utils import timezone
from kombu import Connection, Producer
from kombu.common import maybe_declare
from kombu.exceptions import OperationalError

from soc.beat import templates, wire
from soc.beat.plan import Run
from soc.beat.rows import Message
from soc.beat.worker import Background, Inline

ASK_THE_TASK = object()
"""Stands for a template where every run goes through the task's own ``apply_async``."""

BATCH, WINDOW = 50, 2000
"""Messages written at once, and sent at most without a confirm."""

CONNECT_WITHIN = 5.0
"""Seconds: a handshake of TLS takes its time where the CPU is rationed."""

CONFIRM_WITHIN = 5.0
"""A connection that owes a confirm for this many seconds is given up."""

PART_WITHIN = 0.5
"""Seconds to wait for the broker's answer to a farewell, of AMQP or of TLS."""

REST_OF_A_FRAME = 0.05
"""Seconds to wait for the rest of what has begun to arrive; it is kept if it takes longer."""

HEARTBEAT_EVERY = 1.0
FIRST_RETRY, LAST_RETRY = 0.5, 5.0

logger = logging.getLogger(__name__)


class PublishResult(NamedTuple):
    """What became of a run: why it was not published, and whether another try may help."""

    run: Run
    problem: str = ""
    again: bool = True


class Publisher:
    """Publishes runs; ``results`` says what became of each, often a moment later.

    On AMQP messages are sent one after the other and the broker's confirms are read when they
    have come. Other transports have published when their call returns. ``connects`` is false at
    the end, when a new connection is not worth the wait. ``blocked_since`` is the time since when
    the broker has taken no messages (RabbitMQ documentation, "Blocked Connection Notifications"):
    one of its alarms, of memory or disk, is on.
    """

    def __init__(self, app: celery.Celery, timeout: float, prebuilt: bool | None) -> None:
        self.connects = True
        self._app = app
        self._timeout = timeout
        self._prebuilt = prebuilt
        self._ids = uuid.uuid5(uuid.NAMESPACE_URL, f"celery-beat:{app.main}")
        self._connection: Connection | None = None
        self._wire: amqp.Connection | None = None
        self._channel: Any = None
        self._producer: Any = None
        self.blocked_since: datetime | None = None
        self._tag = 0
        self._unconfirmed: dict[int, tuple[Run, str, float]] = {}
        self._returned: dict[str, str] = {}
        self._results: list[PublishResult] = []
        self._declared: list[Any] = []
        self._frames: list[bytes] = []
        self._can_prebuild: dict[str, bool] = {}
        amqp_is_spoken = _is_amqp(app.connection_for_write())
        self._connector = Background("beat-broker") if amqp_is_spoken else Inline()
        self._attempt: Future[Connection] | None = None
        self._retry = FIRST_RETRY
        self._retry_at = 0.0
        self._heartbeat_at = 0.0

    def task_id(self, run: Run) -> str:
        """Return the id of a run: the same for the same schedule and due time, from any beat."""
        return str(uuid.uuid5(self._ids, f"{run.entry.key}:{run.due}"))

    @property
    def waits(self) -> bool:
        """Whether the broker owes confirms."""
        return bool(self._unconfirmed)

    def ready(self) -> bool:
        """Return whether the broker takes messages now; begin to connect if it is time to try."""
        if self._connection is not None:
            # A broker that went away has said so: nothing must be sent into the void.
            self._read(0)
        if self._connection is not None:
            return self.blocked_since is None
        if self._attempt is None:
            if not self.connects or time.monotonic() < self._retry_at:
                return False
            self._attempt = self._connector.submit(self._connect)
        if not self._attempt.done():
            return False
        attempt, self._attempt = self._attempt, None
        try:
            self._open(attempt.result())
        except self._errors() as error:
            logger.error("The broker cannot be reached, due tasks wait: %s", error)
            self._disconnect()
            self._retry_at = time.monotonic() + self._retry
            self._retry = min(2 * self._retry, LAST_RETRY)
            return False
        self._retry = FIRST_RETRY
        return True

    def send(self, runs: Sequence[Run]) -> Sequence[Run]:
        """Send runs and return those that were not tried: no connection, or too many unconfirmed.

        A task that cannot be published at all, or a connection that breaks in the middle, is a
        result.
        """
        for place, run in enumerate(runs):
            if len(self._frames) >= BATCH:
                self._write()
                self._read(0)
            if self._connection is None or len(self._unconfirmed) >= WINDOW:
                self._write()
                return runs[place:]
            try:
                self._send(run, run.entry.message)
            except self._errors() as error:
                was_sent = any(owed is run for owed, _, _ in self._unconfirmed.values())
                self._lose(error)
                if not was_sent:
                    return runs[place:]
            except Exception as error:
                # The project's own code builds messages: what it raises is one task's problem.
                self._results.append(
                    PublishResult(run, f"{type(error).__name__}: {error}", again=False)
                )
        self._write()
        return ()

    def results(self) -> Iterator[PublishResult]:
        """Read what the broker has said meanwhile and yield what became of runs."""
        if self._connection is not None and (
            self._unconfirmed or time.monotonic() >= self._heartbeat_at
        ):
            self._read(0)
        while self._results:
            yield self._results.pop(0)

    def close(self, seconds: float) -> None:
        """Wait for what the broker owes; the rest counts as not published."""
        end = time.monotonic() + seconds
        while self._unconfirmed and (left := end - time.monotonic()) > 0:
            self._read(left)
        self.connects = False
        self._connector.shutdown()
        if self._wire is not None and not self._unconfirmed:
            with contextlib.suppress(*self._errors()):
                self._wire.transport.sock.settimeout(PART_WITHIN)
                self._wire.close()
        self._give_up("beat was stopped")

    # --- The connection ----------------------------------------------------------------------
    def _errors(self) -> tuple[type[BaseException], ...]:
        connection = self._connection or self._app.connection_for_write()
        return (
            *connection.connection_errors,
            *connection.channel_errors,
            OSError,
            OperationalError,
            amqp.AMQPError,
        )

    def _connect(self) -> Connection:
        connection: Connection = self._app.connection_for_write(connect_timeout=CONNECT_WITHIN)
        if _is_amqp(connection):
            connection.transport_options = {
                "read_timeout": self._timeout,
                "write_timeout": self._timeout,
                **(connection.transport_options or {}),
            }
        connection.connect()
        return connection

    def _open(self, connection: Connection) -> None:
        self._connection = connection
        channel = connection.channel()
        if isinstance(channel, amqp.Channel):
            self._confirm(channel)
        else:
            channel.basic_publish = partial(self._publish_at_once, channel.basic_publish)
        self._channel = channel
        self._producer = Producer(channel, auto_declare=False)
        for entity in self._declared:
            maybe_declare(entity, channel)

    def _confirm(self, channel: amqp.Channel) -> None:
        # Not kombu's, which connects again, for ever, when it is asked for and gone.
        self._wire = channel.connection
        channel.confirm_select()
        # kombu's own call with confirms would wait for each.
        channel.basic_publish = partial(self._publish, partial(amqp.Channel.basic_publish, channel))
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_nack)
        channel.events["basic_return"].add(self._on_return)
        self._wire.on_blocked = partial(self._set_blocked, True)
        self._wire.on_unblocked = partial(self._set_blocked, False)

    def _publish(self, publish: Any, message: Any, *arguments: Any, **options: Any) -> None:
        # The broker counts messages as they come: what was put aside goes first.
        self._write()
        self._owe(self._run, self._id)
        publish(message, *arguments, **options)

    def _publish_at_once(self, publish: Any, *arguments: Any, **options: Any) -> None:
        publish(*arguments, **options)
        self._results.append(PublishResult(self._run))

    def _owe(self, run: Run, task_id: str) -> None:
        self._tag += 1
        self._unconfirmed[self._tag] = (run, task_id, time.monotonic())

    def _write(self) -> None:
        """Write the frames that were put aside, all at once."""
        line = self._wire
        if line is None or not self._frames:
            return
        frames, self._frames = self._frames, []
        try:
            line.transport.write(b"".join(frames))
        except self._errors() as error:
            self._lose(error)
            return
        # What the heartbeat takes as a sign that something was sent.
        line.bytes_sent += len(frames)

    def _lose(self, reason: object) -> None:
        logger.warning("The connection to the broker is lost: %s", reason)
        self._give_up(reason)

    def _give_up(self, reason: object) -> None:
        """Drop the connection; whether the broker took what it did not confirm is unknown."""
        for run, _, _ in self._unconfirmed.values():
            self._results.append(PublishResult(run, f"not confirmed: {reason}"))
        self._disconnect()

    def _disconnect(self) -> None:
        self._unconfirmed.clear()
        self._returned.clear()
        self._frames.clear()
        self._tag = 0
        self.blocked_since = None
        connection, self._connection = self._connection, None
        wire, self._wire = self._wire, None
        self._channel = self._producer = None
        if connection is not None:
            try:
                if wire is not None and wire.connected:
                    wire.transport.sock.settimeout(PART_WITHIN)
                connection.collect()
            except Exception as error:
                logger.debug("The broken connection could not be closed: %s", error)

    # --- Sending -----------------------------------------------------------------------------
    def _send(self, run: Run, message: Message) -> None:
        task_id, now = self.task_id(run), self._app.now()
        if message.template is None:
            message.template = self._prepare(message)
        template = message.template
        if isinstance(template, wire.Image):
            if template.channel_id == self._channel.channel_id:
                self._owe(run, task_id)
                self._frames.append(template.filled(task_id, run.due, now))
                return
            message.template = None
            self._send(run, message)
            return
        self._run, self._id = run, task_id
        if template is ASK_THE_TASK:
            templates.apply(self._app, message, task_id, run.due, self._producer)
            return
        stamped = templates.stamp(template, message, task_id, run.due, now, self._channel)
        self._channel.basic_publish(stamped, **template.publish)

    def _prepare(self, message: Message) -> templates.Template | wire.Image | object:
        possible = self._can_prebuild.get(message.task)
        if possible is None:
            possible = templates.can_prebuild(self._app, message.task, self._prebuilt)
            self._can_prebuild[message.task] = possible
        template = None
        if possible and self._connection is not None:
            template = templates.build(self._app, message, self._connection)
        if template is None:
            return ASK_THE_TASK
        for entity in template.declare:
            if entity not in self._declared:
                maybe_declare(entity, self._channel)
                self._declared.append(entity)
        image = None
        if isinstance(self._channel, amqp.Channel):
            image = wire.image(self._channel, template, message)
        return image or template

    # --- Confirms ----------------------------------------------------------------------------
    def _read(self, seconds: float) -> None:
        """Take what the broker has said; wait for a first word that long."""
        try:
            # What is read may part with the connection.
            while (line := self._wire) is not None and _is_readable(line, seconds):
                seconds = 0
                with contextlib.suppress(TimeoutError):
                    line.drain_events(timeout=REST_OF_A_FRAME)
            if self._wire is not None:
                self._check(self._wire)
        except self._errors() as error:
            self._lose(error)

    def _check(self, connection: amqp.Connection) -> None:
        now = time.monotonic()
        if now >= self._heartbeat_at:
            self._heartbeat_at = now + HEARTBEAT_EVERY
            connection.heartbeat_tick()
        oldest = next(iter(self._unconfirmed.values()), None)
        if oldest and now - oldest[2] > CONFIRM_WITHIN and self.blocked_since is None:
            self._lose(f"no confirm for {CONFIRM_WITHIN} s")

    def _take(self, tag: int, multiple: bool) -> Iterator[tuple[Run, str]]:
        tags = [known for known in self._unconfirmed if known <= tag] if multiple else [tag]
        for known in tags:
            if known in self._unconfirmed:
                run, task_id, _ = self._unconfirmed.pop(known)
                yield run, task_id

    def _on_ack(self, tag: int, multiple: bool) -> None:
        for run, task_id in self._take(tag, multiple):
            self._results.append(PublishResult(run, self._returned.pop(task_id, "")))

    def _on_nack(self, tag: int, multiple: bool) -> None:
        for run, _ in self._take(tag, multiple):
            self._results.append(PublishResult(run, "the broker refused the message"))

    def _on_return(self, error: Exception, exchange: str, key: str, message: Any) -> None:
        task_id = message.properties.get("correlation_id", "")
        self._returned[task_id] = f"no queue takes it: {error} ({exchange!r}, {key!r})"

    def _set_blocked(self, blocked: bool, reason: str = "") -> None:
        self.blocked_since = timezone.now() if blocked else None
        logger.warning("The broker %s", "takes no messages for now" if blocked else "takes again")


def _is_amqp(connection: Connection) -> bool:
    return bool(connection.transport.driver_name == "py-amqp")


def _is_readable(connection: amqp.Connection, seconds: float) -> bool:
    # py-amqp on TLS spins when it is to read without waiting and there is nothing to read.
    socket = connection.transport.sock
    if isinstance(socket, ssl.SSLSocket) and socket.pending():
        return True
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
