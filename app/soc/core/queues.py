"""Samples of the queues for the board: no page ever asks the broker itself."""

import base64
import json
import ssl
import urllib.request
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from celery import Celery
from django.conf import settings
from django.db.models import Count
from django.utils import timezone

from soc.core import dead_letters
from soc.core.models import ALIVE_FOR, DeadTask, Heartbeat, QueueSample
from soc.provision.identity import secret
from soc.runtime.queues import QUEUES, TASK_QUEUES

TIMEOUT = 10
"""Seconds that the management API may take."""

# The short form: totals without the rates that the broker would compute for each queue.
_QUEUES_URL = (
    "https://rabbitmq:15671/api/queues/%2F?columns=name,messages_ready,messages_unacknowledged,"
    "consumers"
)


@dataclass(frozen=True)
class State:
    """How many messages a queue holds and how many workers consume it."""

    messages: int
    consumers: int


def sample(app: Celery) -> None:
    """Record the state of every queue as the broker reports it, and take in its dead letters.

    Raises:
        OSError: the management API cannot be reached or refuses.
        kombu.exceptions.OperationalError: the file-system broker cannot be read.
    """
    states = _of_file_system(app) if settings.EMBEDDED else _of_management_api()
    nothing = State(0, 0)
    # The file-system broker of the embedded stack has no dead lettering.
    dead = {q.name: states.get(q.dead_letter_name, nothing).messages for q in QUEUES}
    if found := [queue for queue in TASK_QUEUES if dead[queue.name]]:
        dead_letters.collect(app, found)
        dead |= {queue.name: 0 for queue in found}
    waiting = DeadTask.objects.filter(state=DeadTask.State.WAITING).order_by()
    kept = dict(waiting.values_list("queue").annotate(Count("pk")))
    QueueSample.objects.bulk_create(
        QueueSample(
            queue=queue.name,
            depth=states[queue.name].messages,
            consumers=states[queue.name].consumers,
            dead=dead[queue.name] + kept.get(queue.name, 0),
        )
        for queue in QUEUES
    )


def _of_management_api() -> Mapping[str, State]:
    """Ask RabbitMQ's management API (its HTTP API reference, ``/api/queues/vhost``).

    A passive declare over AMQP would tell the same, but needs the right to configure the queue.
    """
    login = f"monitor:{secret('monitor_password')}"
    credentials = base64.b64encode(login.encode()).decode()
    request = urllib.request.Request(_QUEUES_URL, headers={"Authorization": f"Basic {credentials}"})
    context = ssl.create_default_context(cafile=settings.IDENTITY / "ca.pem")
    with urllib.request.urlopen(  # noqa: S310 (the URL is ours)
        request, timeout=TIMEOUT, context=context
    ) as response:
        queues = json.load(response)
    # A queue that was just declared has no counts yet.
    return {
        queue["name"]: State(
            queue.get("messages_ready", 0) + queue.get("messages_unacknowledged", 0),
            queue.get("consumers", 0),
        )
        for queue in queues
    }


def _of_file_system(app: Celery) -> Mapping[str, State]:
    """Count the message files, and as consumers, which it does not know, the workers alive."""
    recent = Heartbeat.objects.filter(seen_at__gte=timezone.now() - ALIVE_FOR)
    alive = Counter(recent.values_list("service", flat=True))
    with app.connection_for_read() as connection, connection.channel() as channel:
        return {
            queue.name: State(
                channel.queue_declare(queue.name, passive=True).message_count, alive[queue.service]
            )
            for queue in QUEUES
        }
