"""Dead letters of task queues: kept in the database, to be read, replayed or discarded.

The queues of dead letters in the broker are a buffer: anyone who has no broker's console could only
count what is in there. Those of a stream are taken by its own worker (soc.events.dead).
"""

import hashlib
import json
import logging
from collections.abc import Iterable
from typing import Any

from celery import Celery
from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone
from kombu.entity import Queue as KombuQueue
from kombu.message import Message

from soc.core.models import DeadTask
from soc.runtime.celery import app as soc_app
from soc.runtime.queues import TASK_QUEUES, Queue, queue_of
from soc.schedules.schedules import request_run

BATCH = 200
"""Messages taken from one queue at a time: their task has a time limit."""

LONGEST_KEPT = 200_000
"""Characters of a message's text that are kept; a longer one cannot be replayed."""

State = DeadTask.State

logger = logging.getLogger(__name__)


class CannotReplay(Exception):
    """A dead letter could not be replayed; the text says why."""


def collect(app: Celery, queues: Iterable[Queue] = TASK_QUEUES) -> int:
    """Move dead letters from the broker to the database; return how many.

    A message leaves the broker after its row is committed; taken twice, it is one row.

    Raises:
        OSError, kombu.exceptions.OperationalError: the broker cannot be reached or refuses.
    """
    total = 0
    with app.connection_for_read() as connection, connection.channel() as channel:
        for queue in queues:
            source = KombuQueue(queue.dead_letter_name, channel=channel, no_declare=True)
            messages: list[Message] = []
            while len(messages) < BATCH and (message := source.get(accept=["json"])):
                messages.append(message)
            if messages:
                with transaction.atomic():
                    for message in messages:
                        keep(queue, message)
                channel.basic_ack(messages[-1].delivery_tag, multiple=True)
                logger.warning("%d dead letters of %s were kept", len(messages), queue.name)
            total += len(messages)
    return total


def keep(queue: Queue, message: Message) -> None:
    """Store a dead letter; one that comes again after it was replayed waits again."""
    headers = message.headers or {}
    body = _text(message.body)
    task_id = str(headers.get("id") or "")[:64]
    digest = hashlib.blake2b(f"{task_id} {body}".encode(), digest_size=16).hexdigest()
    now = timezone.now()
    row, created = DeadTask.objects.get_or_create(
        queue=queue.name,
        digest=digest,
        defaults={
            "task": str(headers.get("task") or "")[:200],
            "task_id": task_id,
            "body": body[:LONGEST_KEPT],
            "reason": _reason(queue, headers),
            "first_seen_at": now,
            "last_seen_at": now,
        },
    )
    if not created:
        DeadTask.objects.filter(pk=row.pk).update(
            times=F("times") + 1, last_seen_at=now, state=State.WAITING
        )


def _text(body: bytes | str) -> str:
    return body if isinstance(body, str) else bytes(body).decode("utf-8", "backslashreplace")


def _reason(queue: Queue, headers: dict[str, Any]) -> str:
    """Return why the broker gave it up (RabbitMQ documentation: dead letter exchanges, headers).

    The last death counts: a delayed task died first in the queue of its delay.
    """
    match headers.get("x-last-death-reason"):
        case "delivery_limit":
            times = headers.get("x-delivery-count", queue.delivery_limit + 1)
            return f"It was delivered {times} times: its workers died while they held it."
        case "maxlen":
            return "The queue was full."
    return "A worker rejected it: the log of its worker says why."


def replay(letter: DeadTask, by: str) -> None:
    """Ask beat to run a dead letter's task once more, and settle it, in one transaction.

    The task gets a new id and its retries again.

    Raises:
        CannotReplay: it is settled already, or is no task that its queue's worker would take.
    """
    with transaction.atomic():
        letter = DeadTask.objects.select_for_update().get(pk=letter.pk)
        if letter.state != State.WAITING:
            raise CannotReplay(f"it has been {letter.state} already")
        args, kwargs = _arguments(letter)
        request_run(f"dead letter {letter.pk}", letter.task, by, kwargs, args)
        _settle(DeadTask.objects.filter(pk=letter.pk), State.REPLAYED, by, "")


def _arguments(letter: DeadTask) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of a task's message (Celery documentation: message protocol 2)."""
    soc_app.loader.import_default_modules()
    if letter.task not in soc_app.tasks:
        raise CannotReplay(f"no task is named {letter.task!r}")
    if queue_of(letter.task).name != letter.queue:
        raise CannotReplay(f"{letter.task} is no task of the queue {letter.queue}")
    try:
        args, kwargs, _ = json.loads(letter.body)
    except ValueError:
        raise CannotReplay("its message cannot be decoded") from None
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise CannotReplay("its arguments are no list and no object")
    return args, kwargs


def replay_all(letters: Iterable[DeadTask], by: str) -> tuple[int, list[tuple[DeadTask, str]]]:
    """Replay each; return how many were, and why the others were not."""
    done, failed = 0, []
    for letter in letters:
        try:
            replay(letter, by)
        except CannotReplay as error:
            failed.append((letter, str(error)))
        else:
            done += 1
    return done, failed


def discard(letters: QuerySet[DeadTask], by: str, note: str = "") -> int:
    """Settle dead letters that nobody needs; return how many were waiting."""
    return _settle(letters.filter(state=State.WAITING), State.DISCARDED, by, note)


def _settle(letters: QuerySet[DeadTask], state: State, by: str, note: str) -> int:
    return letters.order_by().update(
        state=state, settled_at=timezone.now(), settled_by=by[:150], note=note[:200]
    )
