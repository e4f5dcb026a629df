"""The whole scheduler in one process: rows in, messages out."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import celery
import pytest
from celery.beat import Service
from celery.schedules import crontab
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone
from django_celery_beat.models import PeriodicTask
from django_celery_beat.utils import is_database_scheduler
from kombu import Queue

from soc.beat import options, signals
from soc.beat.models import Instance, LagSample, Lease
from soc.beat.scheduler import Scheduler
from soc.beat.stopping import uninterrupted

MakeTask = Callable[..., PeriodicTask]


@pytest.fixture
def app() -> Iterator[celery.Celery]:
    made = celery.Celery("whole", broker="memory://whole", set_as_current=False)
    made.conf.task_queues = [Queue("celery")]
    made.conf.result_expires = None
    yield made
    made.close()


@pytest.fixture
def scheduler(app: celery.Celery, no_schedules: None) -> Iterator[Scheduler]:
    made = Scheduler(app=app)
    yield made
    made.close()


def published(app: celery.Celery) -> list[str]:
    found = []
    with app.connection_for_read() as connection, connection.channel() as channel:
        while message := channel.basic_get("celery"):
            message.ack()
            found.append(message.headers["periodic_task_name"])
    return found


def test_what_is_due_is_published_and_the_rest_waits(
    app: celery.Celery, scheduler: Scheduler, make_task: MakeTask
) -> None:
    make_task("due", ago=61)
    make_task("later", ago=30)
    assert 0 < scheduler.tick() <= 1
    assert published(app) == ["due"]
    scheduler.tick()
    assert published(app) == []
    assert scheduler.counts.published == 1


def test_it_tells_how_it_is(app: celery.Celery, scheduler: Scheduler, make_task: MakeTask) -> None:
    make_task(ago=30)
    heard: list[Scheduler] = []

    def hear(scheduler: Scheduler, **_: object) -> None:
        heard.append(scheduler)

    signals.ticked.connect(hear)
    try:
        scheduler.tick()
    finally:
        signals.ticked.disconnect(hear)
    row = Instance.objects.get()
    assert heard == [scheduler]
    assert (row.name, row.leader, row.schedules, row.lag) == (scheduler.name, True, 1, 0)
    assert LagSample.objects.count() == 1


def test_a_second_beat_stands_by_until_the_first_stops(
    app: celery.Celery, scheduler: Scheduler, make_task: MakeTask
) -> None:
    make_task(ago=30)
    scheduler.tick()
    second = Scheduler(app=app)
    second.tick()
    assert not second.is_leader
    scheduler.close()
    assert Lease.objects.get().expires_at <= timezone.now()
    second.keeper._lease_timer.pull()
    second.tick()
    assert second.is_leader
    second.close()


def test_to_look_at_a_scheduler_touches_nothing(app: celery.Celery, no_schedules: None) -> None:
    lazy = Service(app, scheduler_cls=Scheduler).get_scheduler(lazy=True)
    assert lazy.info == ""
    assert lazy.max_interval == 5
    lazy.close()
    assert not Lease.objects.exists()


def test_schedules_of_the_settings_become_rows(app: celery.Celery, no_schedules: None) -> None:
    app.conf.beat_schedule = {
        "sound": {"task": "t", "schedule": crontab(minute="5")},
        "broken": {"task": "t", "schedule": "nonsense"},
    }
    scheduler = Scheduler(app=app)
    assert [task.name for task in PeriodicTask.objects.all()] == ["sound"]
    assert set(scheduler.schedule) == {"sound"}
    scheduler.close()


def test_the_admin_takes_it_for_a_database_scheduler() -> None:
    assert is_database_scheduler("soc.beat.scheduler:Scheduler")


def test_a_clock_put_back_silences_nothing(
    app: celery.Celery,
    scheduler: Scheduler,
    make_task: MakeTask,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_task(ago=1)
    scheduler.tick()
    real = scheduler.now
    monkeypatch.setattr(scheduler, "now", lambda: real() - 3600 * 1_000_000)
    scheduler.tick()
    next_due = scheduler.keeper.plan.next_due()
    assert next_due is not None
    assert next_due - scheduler.now() <= 60_000_000


def test_a_signal_waits_for_the_end_of_a_tick() -> None:
    order: list[str] = []
    before = signal.signal(signal.SIGTERM, lambda *_: order.append("handled"))
    try:
        with uninterrupted():
            signal.raise_signal(signal.SIGTERM)
            order.append("done")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert order == ["done", "handled"]


@pytest.mark.parametrize("given", [{"LEESE": 7}, {"LEASE": 3.0}])
def test_options_that_cannot_work_are_refused(settings: Any, given: dict[str, float]) -> None:
    settings.BEAT = given
    with pytest.raises(ImproperlyConfigured):
        options.read()


def test_a_broker_that_is_down_keeps_the_newest_run_of_each_task(
    app: celery.Celery,
    scheduler: Scheduler,
    make_task: MakeTask,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_task("often", every=1, ago=1)
    make_task("once", ago=61)
    with monkeypatch.context() as patch:
        patch.setattr(scheduler._publisher, "ready", lambda: False)
        scheduler.tick()
        real = scheduler.now
        patch.setattr(scheduler, "now", lambda: real() + 2_000_000)
        scheduler.tick()
        assert published(app) == []
        assert scheduler.lag(scheduler.now()) > 1
    scheduler.tick()
    assert sorted(published(app)) == ["often", "once"]


def test_old_history_is_deleted(scheduler: Scheduler) -> None:
    old = timezone.now() - timedelta(days=3)
    LagSample.objects.create(at=old, lag=0, published=0)
    scheduler.tick()
    assert not LagSample.objects.filter(at=old).exists()
