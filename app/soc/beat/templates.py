"""What goes to the broker: a task's message, built by Celery once and stamped for every run.

``Task.apply_async`` costs several times what publishing does, and says the same every minute but
for the id and the time of expiry.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import celery
from celery import signals
from celery.app.routes import MapRoute
from celery.backends.base import Backend
from kombu import Connection, Producer

from soc.beat.rows import Message
from soc.beat.timing import as_datetime


@dataclass(slots=True)
class Template:
    """A message as Celery hands it to a channel; ``declare`` is what must exist before."""

    body: Any
    priority: int | None
    content_type: str
    content_encoding: str
    headers: dict[str, Any]
    properties: dict[str, Any]
    publish: dict[str, Any]
    declare: list[Any]


class _Tape:
    """A channel that keeps the one message that is published on it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = SimpleNamespace(client=connection)

    def prepare_message(
        self,
        body: Any,
        priority: int | None,
        content_type: str,
        content_encoding: str,
        headers: dict[str, Any],
        properties: dict[str, Any],
    ) -> partial[Template]:
        return partial(
            Template, body, priority, content_type, content_encoding, headers, properties
        )

    def basic_publish(self, message: partial[Template], **options: Any) -> None:
        self.message = message
        self.options = options


class _Recorder(Producer):
    """A producer that writes to a tape and declares nothing."""

    def __init__(self, connection: Connection) -> None:
        self.tape = _Tape(connection)
        super().__init__(self.tape, auto_declare=False)

    def publish(self, body: Any, *arguments: Any, **options: Any) -> None:
        self.declared = list(options.pop("declare", None) or ())
        super().publish(body, *arguments, **{**options, "retry": False})


DUE_HEADER = "periodic_task_due"
"""The header with a run's due time (ISO 8601, UTC): what the stock scheduler does not tell."""


def apply(app: celery.Celery, message: Message, task_id: str, due: int, producer: Producer) -> None:
    """Publish a run as the stock scheduler does, through the task's own ``apply_async``."""
    options: dict[str, Any] = {
        name: value
        for name in ("queue", "exchange", "routing_key", "priority")
        if (value := getattr(message, name)) is not None
    }
    if message.expires or message.expire_seconds:
        options["expires"] = (
            as_datetime(message.expires) if message.expires else message.expire_seconds
        )
    options["headers"] = {
        **json.loads(message.headers),
        "periodic_task_name": message.name,
        "celery_beat_task": True,
        DUE_HEADER: as_datetime(due).isoformat(),
    }
    options |= {"task_id": task_id, "producer": producer, "retry": False}
    args, kwargs = json.loads(message.args), json.loads(message.kwargs)
    task = app.tasks.get(message.task)
    if task is None:
        app.send_task(message.task, args, kwargs, **options)
    else:
        task.apply_async(args, kwargs, **options)


def can_prebuild(app: celery.Celery, name: str, given: bool | None) -> bool:
    """Return whether a task's messages differ in nothing but id and expiry.

    What is asked of by every message must not be asked once: signals, events, a result backend
    that prepares for each result, an ``apply_async`` or a router of the project's own. ``given``
    says that the last two depend on their arguments alone; False turns templates off.
    """
    task = app.tasks.get(name)
    if given is False or app.conf.task_send_sent_event or app.conf.task_always_eager:
        return False
    if any(
        signal.receivers
        for signal in (signals.before_task_publish, signals.after_task_publish, signals.task_sent)
    ):
        return False
    ignored = app.conf.task_ignore_result if task is None else task.ignore_result
    if not ignored and type(app.backend).on_task_call is not Backend.on_task_call:
        return False
    if given:
        return True
    kinds = (celery.Task.apply_async, celery.Task.shadow_name)
    plain = task is None or (type(task).apply_async, type(task).shadow_name) == kinds
    return plain and all(isinstance(route, MapRoute) for route in app.amqp.routes)


def build(app: celery.Celery, message: Message, connection: Connection) -> Template | None:
    """Have Celery build a message; None if its expiry is the task's own choice."""
    recorder = _Recorder(connection)
    apply(app, message, "", 0, recorder)
    template = recorder.tape.message(recorder.tape.options, recorder.declared)
    headers = template.headers
    own_expiry = headers["expires"] and not (message.expires or message.expire_seconds)
    return None if own_expiry or headers["eta"] else template


def stamp(
    template: Template, message: Message, task_id: str, due: int, now: datetime, channel: Any
) -> Any:
    """Return the channel's message of one run."""
    headers = template.headers | {
        "id": task_id,
        "root_id": task_id,
        DUE_HEADER: as_datetime(due).isoformat(),
    }
    properties = template.properties | {"correlation_id": task_id}
    if message.expires:
        left = (as_datetime(message.expires) - now).total_seconds()
        properties["expiration"] = str(int(max(left, 0) * 1000))
    elif message.expire_seconds:
        expiry = now.astimezone(UTC) + timedelta(seconds=message.expire_seconds)
        headers["expires"] = expiry.astimezone(now.tzinfo).isoformat()
    return channel.prepare_message(
        template.body,
        template.priority,
        template.content_type,
        template.content_encoding,
        headers,
        properties,
    )
