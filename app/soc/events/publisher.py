"""Publishes to the stream as Logstash does: over AMQPS, as the stream's own user.

Confirms are read as they come; what was not confirmed when a connection was lost is sent again, so
that a message may come twice and none is lost.
"""

import ssl
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import amqp
from django.conf import settings
from kombu import Connection, Exchange, Queue

from soc.runtime.celery import app
from soc.runtime.queues import BY_NAME, STREAMS

WINDOW = 1000
"""Messages sent at most without a confirm."""

PATIENCE = 15.0
"""Seconds that a connection may owe a confirm before it is given up."""

PAUSE = 1.0
"""Seconds before the next try to reach the broker."""

INSTANT = 0.0001
"""Seconds to wait for what has come already: 0 would wait for ever."""

QUEUE = BY_NAME["events"]
STREAM = STREAMS[QUEUE.name]


class EventPublisher:
    """A publisher that outlives the broker; ``identity`` is the folder of its certificate.

    ``told`` is called with what a person should know.
    """

    def __init__(self, identity: Path, told: Callable[[str], None]) -> None:
        self.confirmed = self.resent = 0
        self._identity = identity
        self._told = told
        self._link: Connection | None = None
        self._channel: Any = None
        self._tag = 0
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._unsent: deque[bytes] = deque()

    def publish(self, body: bytes) -> None:
        """Send a message, as soon as there is a connection and room in the window."""
        self._unsent.append(body)
        while self._unsent:
            self._go_on(wait=len(self._waiting) >= WINDOW)

    def turn(self) -> None:
        """Read the confirms that have come, and keep the connection alive."""
        self._go_on(wait=False)

    def close(self) -> None:
        """Wait until everything is confirmed."""
        while self._unsent or self._waiting:
            self._go_on(wait=True)
        if self._link:
            self._link.release()

    def _go_on(self, *, wait: bool) -> None:
        try:
            if self._link is None:
                self._connect()
            while self._unsent and len(self._waiting) < WINDOW:
                self._send(self._unsent[0])
                self._unsent.popleft()
            self._read(0.5 if wait else 0)
        except (amqp.AMQPError, OSError) as error:
            self._told(f"the broker is lost, {len(self._waiting)} messages go again: {error}")
            self._lose()

    # --- The connection -------------------------------------------------------------------------

    def _connect(self) -> None:
        while self._link is None:
            link = self._connection()
            try:
                link.connect()
                self._open(link)
            except (amqp.AMQPError, OSError) as error:
                self._told(f"the broker cannot be reached: {error}")
                link.collect()
                time.sleep(PAUSE)
            else:
                self._link = link

    def _connection(self) -> Connection:
        if settings.EMBEDDED:
            link: Connection = app.connection_for_write()
            return link
        options = {
            "ca_certs": str(self._identity / "ca.pem"),
            "certfile": str(self._identity / "cert.pem"),
            "keyfile": str(self._identity / "key.pem"),
            "cert_reqs": ssl.CERT_REQUIRED,
            "server_hostname": None,
        }
        url = f"amqps://{STREAM.publisher}@rabbitmq:5671//"
        return Connection(url, ssl=options, login_method="EXTERNAL", heartbeat=10)

    def _open(self, link: Connection) -> None:
        self._channel = link.channel()
        self._tag = 0
        self._heard_at = self._ticked_at = time.monotonic()
        if settings.EMBEDDED:
            exchange = Exchange(STREAM.exchange, type="topic")
            Queue(QUEUE.name, exchange, STREAM.routing_key)(self._channel).declare()
            return
        self._channel.confirm_select()
        self._channel.events["basic_ack"].add(self._on_ack)
        self._channel.events["basic_nack"].add(self._on_nack)
        self._channel.events["basic_return"].add(self._on_return)

    def _lose(self) -> None:
        self.resent += len(self._waiting)
        self._unsent.extendleft(body for _, body in reversed(self._waiting))
        self._waiting.clear()
        link, self._link = self._link, None
        if link:
            link.collect()

    def _send(self, body: bytes) -> None:
        message = self._channel.prepare_message(
            body, content_type="application/json", properties={"delivery_mode": 2}
        )
        where = {"exchange": STREAM.exchange, "routing_key": STREAM.routing_key}
        self._channel.basic_publish(message, **where, mandatory=True)
        if settings.EMBEDDED:
            self.confirmed += 1
            return
        self._tag += 1
        self._waiting.append((self._tag, body))

    def _read(self, seconds: float) -> None:
        link = self._link
        if settings.EMBEDDED or link is None:
            return
        now = time.monotonic()
        if now - self._ticked_at >= 1:
            self._ticked_at = now
            link.heartbeat_check()
        try:
            while self._waiting:
                link.drain_events(timeout=seconds or INSTANT)
                seconds = 0
        except TimeoutError:
            if self._waiting and now - self._heard_at > PATIENCE:
                raise OSError(f"it has confirmed nothing for {PATIENCE:.0f} s") from None

    # --- What the broker says -------------------------------------------------------------------

    def _on_ack(self, tag: int, multiple: bool) -> None:
        self.confirmed += len(self._settled(tag, multiple))

    def _on_nack(self, tag: int, multiple: bool) -> None:
        """Send again what the broker had no room for."""
        self._unsent += self._settled(tag, multiple)

    def _on_return(self, *answer: Any) -> None:
        """Send again what no queue took; the broker confirms it all the same."""
        self.confirmed -= 1
        self._unsent.append(answer[-1].body)

    def _settled(self, tag: int, multiple: bool) -> list[bytes]:
        """Take the messages that the broker speaks of from those that wait."""
        self._heard_at = time.monotonic()
        if multiple:
            bodies = []
            while self._waiting and self._waiting[0][0] <= tag:
                bodies.append(self._waiting.popleft()[1])
            return bodies
        for place, (known, body) in enumerate(self._waiting):
            if known == tag:
                del self._waiting[place]
                return [body]
        return []
