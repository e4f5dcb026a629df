"""Samples of the queues for the board: no page ever asks the broker itself."""

from celery import Celery
from django.conf import settings
from kombu.transport.base import StdChannel

from soc.core.models import QueueSample
from soc.queues import QUEUES


def sample(app: Celery) -> None:
    """Record the state of every queue as the broker tells it.

    Raises:
        kombu.exceptions.OperationalError: the broker cannot be reached.
    """
    with app.connection_or_acquire() as connection, connection.channel() as channel:
        samples = []
        for queue in QUEUES:
            # A passive declare asks without declaring (AMQP 0-9-1, queue.declare).
            state = channel.queue_declare(queue.name, passive=True)
            samples.append(
                QueueSample(
                    queue=queue.name,
                    depth=state.message_count,
                    consumers=state.consumer_count,
                    dead=_dead_letters(channel, queue.dead_letter_name),
                )
            )
    QueueSample.objects.bulk_create(samples)


def _dead_letters(channel: StdChannel, name: str) -> int:
    # The file-system broker of the embedded stack has no dead lettering.
    if settings.EMBEDDED:
        return 0
    return channel.queue_declare(name, passive=True).message_count
