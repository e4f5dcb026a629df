"""Schedules from migrations, and runs on request."""

import json
from datetime import timedelta

import pytest
from django.apps import apps
from django.utils import timezone
from django_celery_beat.models import PeriodicTask, PeriodicTasks

from soc.core import housekeeping
from soc.core.models import Heartbeat
from soc.schedules import schedules
from soc.schedules.schedules import Cron, Every, Schedule

pytestmark = pytest.mark.django_db

TASK = "soc.core.tasks.keep_house"


def schedule(**changes: object) -> Schedule:
    values = {"name": "s", "task": TASK, "when": Every(60), "expires": 60, "description": "d"}
    return Schedule(**{**values, **changes})


def test_a_missing_schedule_is_created_and_beat_is_told() -> None:
    before = PeriodicTasks.last_change()
    schedules.create(apps, schedule(kwargs={}))
    made = PeriodicTask.objects.get(name="s")
    assert (made.task, made.queue, made.expire_seconds) == (TASK, "shared", 60)
    assert (made.interval.every, made.interval.period) == (60, "seconds")
    assert PeriodicTasks.last_change() != before


def test_creating_twice_keeps_what_an_operator_edited() -> None:
    schedules.create(apps, schedule())
    PeriodicTask.objects.filter(name="s").update(enabled=False, expire_seconds=7)
    schedules.create(apps, schedule())
    kept = PeriodicTask.objects.get(name="s")
    assert (kept.enabled, kept.expire_seconds) == (False, 7)


def test_crontabs_are_shared_and_in_the_sites_zone(settings: object) -> None:
    settings.TIME_ZONE = "America/Vancouver"
    schedules.create(apps, schedule(name="a", when=Cron(hour="3", minute="20")))
    schedules.create(apps, schedule(name="b", when=Cron(hour="3", minute="20")))
    first, second = PeriodicTask.objects.filter(name__in=["a", "b"])
    assert first.crontab == second.crontab
    assert str(first.crontab.timezone) == "America/Vancouver"


def test_a_run_on_request_is_a_one_off_that_is_due_and_expires() -> None:
    schedules.request_run("scan", "soc.ssl_certs.tasks.scan_endpoint", "alice", {"key": 7})
    run = PeriodicTask.objects.get(one_off=True)
    assert run.clocked.clocked_time <= timezone.now()
    assert json.loads(run.kwargs) == {"key": 7}
    assert run.queue == "ssl_certs"
    assert run.expire_seconds
    assert "alice" in run.description


def test_finished_requests_are_forgotten_and_waiting_ones_kept() -> None:
    for name in ("old", "new", "waiting"):
        schedules.request_run(name, TASK, "alice")
    for run in PeriodicTask.objects.filter(one_off=True):
        if "waiting" not in run.name:
            PeriodicTask.objects.filter(pk=run.pk).update(enabled=False)
        if "new" not in run.name:
            run.clocked.clocked_time = timezone.now() - timedelta(days=2)
            run.clocked.save()
    assert schedules.forget_finished_runs(timedelta(days=1)) == 1
    left = PeriodicTask.objects.filter(one_off=True).values_list("name", flat=True)
    assert sorted(name.split()[1] for name in left) == ["new", "waiting"]


def test_housekeeping_deletes_by_retention_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "BATCH", 2)
    now = timezone.now()
    for number, age in enumerate([0, 2, 3, 4, 5, 6]):
        Heartbeat.objects.create(
            service="s", instance=str(number), seen_at=now - timedelta(days=age)
        )
    assert housekeeping.run()["core.Heartbeat"] == 5
    assert Heartbeat.objects.get().instance == "0"
