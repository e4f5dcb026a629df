"""What goes to the broker: the stock scheduler's message, and what became of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import celery
import pytest
from celery import signals
from celery.beat import Scheduler as CelerysScheduler
from django.utils import timezone
from django_celery_beat.models import IntervalSchedule, PeriodicTask
from django_celery_beat.schedulers import ModelEntry
from kombu import Exchange, Queue

from soc.beat import templates, wire
from soc.beat.database import connect
from soc.beat.plan import Run
from soc.beat.publish import Publisher
from soc.beat.rows import Message, Reader

DIFFERS = {"id", "root_id", "expires", "periodic_task_due"}


class Plain(celery.Task):
    """A task like most."""


class Fussy(celery.Task):
    """A task whose messages differ in more than an id."""

    def apply_async(self, *args: Any, **options: Any) -> Any:
        options["headers"] = {**options["headers"], "mood": "fussy"}
        return super().apply_async(*args, **options)


@pytest.fixture
def app() -> Iterator[celery.Celery]:
    made = celery.Celery("test", broker="memory://", set_as_current=False)
    made.conf.task_queues = [Queue("celery"), Queue("side", Exchange("other", "topic"), "side.key")]
    made.conf.task_ignore_result = True

    @made.task(shared=False, name="plain", base=Plain)
    def plain(*args: int, **kwargs: int) -> None:
        """Takes anything."""

    @made.task(shared=False, name="fussy", base=Fussy)
    def fussy(*args: int, **kwargs: int) -> None:
        """Takes anything."""

    @made.task(shared=False, name="picky")
    def picky(a: int) -> None:
        """Takes one argument."""

    made.finalize()
    yield made
    made.close()


@pytest.fixture
def publisher(app: celery.Celery) -> Iterator[Publisher]:
    made = Publisher(app, 1, None)
    yield made
    made.close(0)


@pytest.fixture
def row(no_schedules: None) -> PeriodicTask:
    minute = IntervalSchedule.objects.create(every=60, period="seconds")
    return PeriodicTask.objects.create(
        name="row",
        task="plain",
        interval=minute,
        args='[1, "two"]',
        kwargs='{"three": 3}',
        headers='{"x-own": "yes"}',
        queue="side",
        priority=4,
        expire_seconds=30,
    )


def run_of(row: PeriodicTask, due: int = 1_700_000_000_000_000) -> Run:
    (entry,) = [entry for entry in Reader(connect(1)).all().entries if entry.key == row.pk]
    return Run(entry, due, None)


def arrived(app: celery.Celery, queue: str) -> list[Any]:
    found = []
    with app.connection_for_read() as connection, connection.channel() as channel:
        while message := channel.basic_get(queue):
            message.ack()
            found.append(message)
    return found


def comparable(message: Any) -> dict[str, Any]:
    """All of a message but what differs from run to run."""
    properties = {
        name: value
        for name, value in message.properties.items()
        if name not in ("correlation_id", "delivery_tag")
    }
    return {
        "body": json.loads(message.body),
        "headers": {n: v for n, v in message.headers.items() if n not in DIFFERS},
        "properties": properties,
        "type": (message.content_type, message.content_encoding),
    }


def stock_message(app: celery.Celery, row: PeriodicTask) -> Any:
    scheduler = CelerysScheduler(app, lazy=True)
    scheduler.should_sync = lambda: False
    scheduler.apply_async(ModelEntry(row, app=app), producer=scheduler.producer, advance=False)
    (message,) = arrived(app, row.queue or "celery")
    return message


@pytest.mark.parametrize("task", ["plain", "fussy", "unknown.to.this.process"])
@pytest.mark.parametrize("queue", ["side", None])
def test_a_worker_gets_what_the_stock_scheduler_sends(
    app: celery.Celery, publisher: Publisher, row: PeriodicTask, task: str, queue: str | None
) -> None:
    row.task, row.queue = task, queue
    row.save()
    expected = stock_message(app, row)
    run = run_of(row)
    assert publisher.ready()
    assert publisher.send([run, run]) == ()
    messages = arrived(app, queue or "celery")
    assert [comparable(message) for message in messages] == [comparable(expected)] * 2
    for message in messages:
        assert message.headers["id"] == publisher.task_id(run)
        assert message.headers["root_id"] == message.properties["correlation_id"]
        assert message.headers["periodic_task_name"] == "row"
        assert message.headers["periodic_task_due"] == "2023-11-14T22:13:20+00:00"
        assert len(message.headers["expires"]) == len(expected.headers["expires"])
    assert [result.problem for result in publisher.results()] == ["", ""]


def test_a_runs_id_depends_on_its_schedule_and_its_time_alone(
    app: celery.Celery, publisher: Publisher, row: PeriodicTask
) -> None:
    other = Publisher(app, 1, None)
    assert publisher.task_id(run_of(row, 10)) == other.task_id(run_of(row, 10))
    assert publisher.task_id(run_of(row, 10)) != publisher.task_id(run_of(row, 11))


def test_an_absolute_expiry_is_told_as_it_is(
    app: celery.Celery, publisher: Publisher, row: PeriodicTask
) -> None:
    row.expires, row.expire_seconds = timezone.now() + timedelta(hours=1), None
    row.save()
    publisher.ready()
    publisher.send([run_of(row)])
    (message,) = arrived(app, "side")
    assert message.headers["expires"] == row.expires.isoformat()
    assert 3_590_000 < int(message.properties["expiration"]) <= 3_600_000


def test_a_task_that_cannot_be_published_costs_no_other(
    app: celery.Celery, publisher: Publisher, row: PeriodicTask
) -> None:
    bad = PeriodicTask.objects.create(name="bad", task="picky", interval=row.interval, args="[]")
    publisher.ready()
    assert publisher.send([run_of(bad), run_of(row)]) == ()
    results = {result.run.entry.key: result for result in publisher.results()}
    assert "TypeError" in results[bad.pk].problem
    assert not results[bad.pk].again
    assert results[row.pk].problem == ""


def test_templates_are_for_tasks_that_say_nothing_of_their_own(app: celery.Celery) -> None:
    assert templates.can_prebuild(app, "plain", None)
    assert not templates.can_prebuild(app, "fussy", None)
    assert templates.can_prebuild(app, "fussy", True)
    assert not templates.can_prebuild(app, "plain", False)


def test_a_listener_to_messages_hears_of_every_one(app: celery.Celery) -> None:
    def listener(**_: object) -> None:
        """Hears."""

    signals.before_task_publish.connect(listener)
    try:
        assert not templates.can_prebuild(app, "plain", True)
    finally:
        signals.before_task_publish.disconnect(listener)


def test_a_router_of_the_projects_own_is_asked_every_time(app: celery.Celery) -> None:
    app.conf.task_routes = [lambda *_, **__: {"queue": "side"}]
    app.amqp.flush_routes()
    assert not templates.can_prebuild(app, "plain", None)


class FakeWire:
    """An AMQP channel's surroundings, as far as writing a message needs them."""

    channel_id = 1
    connection = type("Connection", (), {"frame_max": 131072})()

    @staticmethod
    def prepare_message(*arguments: Any) -> Any:
        from kombu.transport.pyamqp import Channel

        return Channel.prepare_message(None, *arguments)


def test_the_image_of_a_message_is_what_py_amqp_writes(
    app: celery.Celery, row: PeriodicTask
) -> None:
    from amqp.method_framing import frame_writer

    message: Message = run_of(row).entry.message
    template = templates.build(app, message, app.connection_for_write())
    now, due = app.now(), 1_700_000_000_000_001
    task_id = "6a3b1c1e-0000-4000-8000-000000000001"
    stamped = templates.stamp(template, message, task_id, due, now, FakeWire)
    written: list[bytes] = []
    connection = type("C", (), {"frame_max": 131072, "bytes_sent": 0})()
    transport = type("T", (), {"write": lambda _, data: written.append(bytes(data))})()
    options = template.publish
    arguments = wire.dumps(
        "Bssbb", (0, options["exchange"], options["routing_key"], options["mandatory"], False)
    )
    frame_writer(connection, transport)(1, 1, (60, 40), arguments, stamped)
    image = wire.image(FakeWire, template, message)
    assert image is not None
    assert image.filled(task_id, due, now) == b"".join(written)
