"""What every task gets from its base class and from the settings."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock

import celery
import pytest
from celery.exceptions import Retry, SoftTimeLimitExceeded
from django.db import DatabaseError, InterfaceError, OperationalError
from kombu import Message
from kombu.utils.imports import symbol_by_name

from soc.core.models import TaskFailure
from soc.provision.broker import definitions
from soc.runtime import celery as soc_celery
from soc.runtime.celery import Task, app
from soc.runtime.queues import TASK_EXCHANGE


def fail(error: Exception, times: int = 1) -> Callable[..., Any]:
    """Return a function that raises at its first calls and counts all of them."""

    def body(*_: object, **__: object) -> str:
        body.calls += 1
        if body.calls <= times:
            raise error
        return "done"

    body.calls = 0
    return body


def task_of(body: Callable[..., Any]) -> Any:
    """Make a task that the stack's own application does not know."""
    other = celery.Celery("other", task_cls=Task, set_as_current=False)
    other.config_from_object("django.conf:settings", namespace="CELERY")
    return other.task(body, name="soc.core.tasks.body", shared=False)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seconds before each retry, were jitter always to choose the longest."""
    seen: list[int] = []

    def longest(stop: int) -> int:
        seen.append(stop - 1)
        return stop - 1

    monkeypatch.setattr("celery.utils.time.random.randrange", longest)
    return seen


def our_tasks() -> list[Any]:
    app.loader.import_default_modules()
    return [task for name, task in app.tasks.items() if name.startswith("soc.")]


@pytest.mark.django_db
def test_an_error_is_recorded_with_all_that_a_person_asks_for() -> None:
    result = task_of(fail(ValueError("the reason"))).apply((7,), {"word": "x"})
    failure = TaskFailure.objects.get()
    assert (failure.task, failure.task_id) == ("soc.core.tasks.body", result.id)
    assert failure.kind == TaskFailure.Kind.ERROR
    assert failure.error == "ValueError: the reason"
    assert failure.arguments == "(7,) {'word': 'x'}"
    assert "in body" in failure.traceback
    assert "ValueError: the reason" in failure.traceback


@pytest.mark.django_db
def test_a_time_limit_is_recorded_as_one() -> None:
    task_of(fail(SoftTimeLimitExceeded())).apply()
    assert TaskFailure.objects.get().kind == TaskFailure.Kind.TIMEOUT


@pytest.mark.django_db
def test_a_hard_time_limit_is_recorded_for_the_child_that_it_killed() -> None:
    message = Message(
        body=b"[[7], {}, {}]",
        headers={"id": "the-id", "task": "soc.core.tasks.body"},
        content_type="application/json",
        content_encoding="utf-8",
    )
    task = task_of(fail(ValueError()))
    request = symbol_by_name(task.Request)(message, app=task.app, task=task, decoded=False)
    request.on_timeout(soft=True, timeout=60)
    assert not TaskFailure.objects.exists()
    request.on_timeout(soft=False, timeout=90)
    failure = TaskFailure.objects.get()
    assert (failure.task, failure.task_id) == ("soc.core.tasks.body", "the-id")
    assert failure.kind == TaskFailure.Kind.TIMEOUT
    assert "90" in failure.error


@pytest.mark.django_db
def test_a_long_story_is_cut() -> None:
    task_of(fail(ValueError("e" * 30_000))).apply(("a" * 30_000,))
    failure = TaskFailure.objects.get()
    assert len(failure.error) == len(failure.arguments) == 2000
    assert len(failure.traceback) == 20_000


@pytest.mark.django_db
def test_success_records_nothing() -> None:
    assert task_of(fail(ValueError(), times=0)).apply().get() == "done"
    assert not TaskFailure.objects.exists()


@pytest.mark.parametrize("error", [DatabaseError("no database"), InterfaceError("closed")])
def test_a_failure_that_cannot_be_recorded_is_logged(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def down(**_: object) -> None:
        raise error

    monkeypatch.setattr(TaskFailure.objects, "create", down)
    with caplog.at_level(logging.ERROR, logger="soc.runtime.celery"):
        result = task_of(fail(ValueError("the reason"))).apply()
    assert isinstance(result.result, ValueError)
    assert f"soc.core.tasks.body ({result.id}) could not be recorded" in caplog.text


@pytest.mark.django_db
@pytest.mark.parametrize("error", [OperationalError("gone away"), InterfaceError("closed")])
def test_a_lost_database_is_tried_again(error: Exception, pauses: list[int]) -> None:
    body = fail(error, times=3)
    assert task_of(body).apply().get() == "done"
    assert body.calls == 4
    assert pauses == [2, 4, 8]
    assert not TaskFailure.objects.exists()


@pytest.mark.django_db
def test_a_database_that_stays_away_is_given_up(pauses: list[int]) -> None:
    body = fail(OperationalError("gone away"), times=100)
    result = task_of(body).apply()
    assert isinstance(result.result, OperationalError)
    assert pauses == [2, 4, 8, 16, 32, 64, 128, 256, 300]
    assert body.calls == 9
    assert TaskFailure.objects.get().error == "OperationalError: gone away"


@pytest.mark.parametrize("countdown", [0, 5])
@pytest.mark.parametrize("retries", [0, 1])
def test_a_retry_is_published_where_its_worker_may_publish(
    countdown: int, retries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second retry comes from a delayed message, whose exchange takes no publisher."""
    task = task_of(fail(OperationalError("gone away"), times=100))
    delayed = {"exchange": "celery_delayed_delivery", "routing_key": "0." * 28 + "shared"}
    came = delayed if retries else {"exchange": TASK_EXCHANGE, "routing_key": "shared"}
    producer = MagicMock()
    # What tells of the broker's kind without a connection to it.
    monkeypatch.setattr("celery.app.base.detect_quorum_queues", lambda *_: (True, "shared"))
    task.push_request(id="the-id", args=(), kwargs={}, retries=retries, delivery_info=came,
                      called_directly=False)  # fmt: skip
    with pytest.raises(Retry):
        task.retry(countdown=countdown, producer=producer)
    sent = producer.publish.call_args.kwargs
    exchange = getattr(sent["exchange"], "name", sent["exchange"])
    rules = {
        rule["exchange"]: rule["write"]
        for rule in definitions({})["topic_permissions"]
        if rule["user"] == "worker-shared"
    }
    assert re.search(rules.get(exchange, r"^$"), sent["routing_key"])


@pytest.mark.django_db
def test_any_other_error_is_not_tried_again() -> None:
    body = fail(ValueError("the reason"))
    task_of(body).apply()
    assert body.calls == 1


def test_a_task_looks_at_its_kept_connection_first(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(soc_celery, "close_old_connections", lambda: order.append("look"))

    def work() -> None:
        order.append("work")

    task_of(work).apply()
    assert order == ["look", "work"]


def test_a_message_that_no_queue_takes_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(celery.Task, "apply_async", lambda *_, **options: options)
    for task in our_tasks():
        assert task.apply_async(expires=5) == {"mandatory": True, "expires": 5}, task.name


def test_every_task_survives_its_worker() -> None:
    for task in our_tasks():
        assert isinstance(task, Task), task.name
        assert task.acks_late is True, task.name
        assert task.reject_on_worker_lost is True, task.name
        # Otherwise a failure or a time limit would leave the message to be delivered for ever.
        assert task.acks_on_failure_or_timeout is True, task.name
        assert set(Task.autoretry_for) <= set(task.autoretry_for), task.name
        assert 0 < task.max_retries <= Task.max_retries, task.name


def test_nothing_but_json_is_sent_or_taken() -> None:
    assert app.conf.accept_content == ["json"]
    assert app.conf.task_serializer == "json"
    for task in our_tasks():
        assert task.serializer == "json", task.name
        assert task.ignore_result is True, task.name
