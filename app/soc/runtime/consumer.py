"""The consumer of our workers: Celery's, but it loses no message and waits for no telemetry."""

import logging
import time
from collections.abc import Callable
from typing import Any

from celery.worker import consumer, heartbeat
from celery.worker.consumer import heart
from kombu.message import Message

from soc.runtime.queues import queue_of

logger = logging.getLogger(__name__)

EVENT_INTERVAL = 0.5
"""Seconds for which task events are gathered."""

_REPLACED = (
    "celery.worker.consumer.delayed_delivery:DelayedDelivery",
    "celery.worker.consumer.heart:Heart",
)


class _Pulse(heartbeat.Heart):
    """Celery's heartbeat events, sent once each."""

    def _send(self, event: str, retry: bool = False) -> None:
        super()._send(event, retry=False)


class Heart(heart.Heart):
    """Sends heartbeat events without waiting for a broker that is gone.

    Celery's own retries without end inside the worker's loop, which then no longer hears SIGTERM.
    """

    def start(self, c: consumer.Consumer) -> None:
        """Begin to send heartbeat events."""
        c.heart = _Pulse(c.timer, c.event_dispatcher, self.heartbeat_interval)
        c.heart.start()


class Consumer(consumer.Consumer):
    """Parks messages that cannot be read or are for another worker, and declares nothing.

    Celery acknowledges an undecodable message, which loses it. The exchanges for delayed tasks
    are part of the broker's definitions: a worker has no right to declare them.
    """

    class Blueprint(consumer.Consumer.Blueprint):
        """Celery's steps with our heart and without the delayed-delivery topology."""

        default_steps = (
            *(step for step in consumer.Consumer.Blueprint.default_steps if step not in _REPLACED),
            Heart,
        )

    _next_flush = 0.0

    def connection_for_write(self, url: str | None = None, heartbeat: float | None = None) -> Any:
        """Connect for events, without publisher confirms.

        Events are telemetry: a confirm waited for in the worker's loop would halve its speed, and
        stop it while the broker is short of memory. Tasks are published elsewhere, with confirms.
        """
        return self.ensure_connected(
            self.app.connection_for_write(
                url=url, heartbeat=heartbeat, transport_options={"confirm_publish": False}
            )
        )

    def on_send_event_buffered(self) -> None:
        """Send the events of a moment together."""
        now = time.monotonic()
        if now >= self._next_flush:
            self._next_flush = now + EVENT_INTERVAL
            self.timer.call_after(EVENT_INTERVAL, self._flush_events)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Message], None]:
        """Return Celery's handler, behind a check of the message's content type."""
        handle = super().create_task_handler(*args, **kwargs)

        def handle_readable(message: Message) -> None:
            if message.content_type != "application/json":
                self._park(message, f"its content type is {message.content_type!r}, not JSON")
            elif stranger := self._stranger(message):
                self._park(message, f"it belongs to the queue {stranger}")
            else:
                handle(message)

        return handle_readable

    def _stranger(self, message: Message) -> str:
        """Return the queue of a task that is none of this worker's, or nothing.

        Who may write to one queue must not have its worker do what only another is trusted with.
        """
        try:
            queue = queue_of((message.headers or {}).get("task", ""))
        except LookupError:
            return ""
        return "" if queue.name in self.app.amqp.queues.consume_from else queue.name

    def on_decode_error(self, message: Message, exc: Exception) -> None:
        """Send a message that is not valid JSON to the dead-letter queue."""
        self._park(message, f"it cannot be decoded: {exc}")

    def _park(self, message: Message, reason: str) -> None:
        logger.critical(
            "A message with task %r is refused and goes to the dead-letter queue: %s",
            (message.headers or {}).get("task"),
            reason,
        )
        message.reject_log_error(logger, self.connection_errors)
