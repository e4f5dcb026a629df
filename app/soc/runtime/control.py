"""Celery's remote control and events over exchanges that the broker's definitions hold.

Celery declares its exchanges whenever it uses them. Who may declare an exchange may delete it:
no service has that right, and so none may ask.
"""

from typing import Any

from celery.app import control
from celery.events.event import event_exchange
from django.conf import settings
from kombu import Exchange, pidbox


class ControlMailbox(pidbox.Mailbox):
    """Kombu's mailbox; only the queues are declared, which belong to one process."""

    def _get_exchange(self, namespace: str, type: str) -> Exchange:  # noqa: A002 (kombu's name)
        return _defined(super()._get_exchange(namespace, type))

    def _get_reply_exchange(self, namespace: str) -> Exchange:
        return _defined(super()._get_reply_exchange(namespace))

    def _publish_reply(
        self,
        reply: Any,
        exchange: str,
        routing_key: str,
        ticket: str,
        channel: Any = None,
        producer: Any = None,
        **options: Any,
    ) -> None:
        """Answer as kombu does, except that it declares an exchange of the asker's choice."""
        own = self.reply_exchange
        if own is None or exchange != own.name:
            raise ValueError(f"an answer was asked for on the exchange {exchange!r}")
        with self.producer_or_acquire(producer, channel) as answering:
            answering.publish(
                reply,
                exchange=exchange,
                routing_key=routing_key,
                declare=[own],
                headers={"ticket": ticket, "clock": self.clock.forward()},
                delivery_mode="transient",
                retry=True,
                **options,
            )


class Control(control.Control):
    """Celery's control with our mailbox."""

    Mailbox = ControlMailbox


def leave_events_undeclared(**_: object) -> None:
    """Keep every process of the application from declaring the exchange of the events."""
    _defined(event_exchange)


def _defined(exchange: Exchange) -> Exchange:
    # The file-system broker knows only what it is sent.
    exchange.no_declare = not settings.EMBEDDED
    return exchange
