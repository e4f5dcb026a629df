"""Schedules in the database, created by data migrations and run on request.

A migration names its schedules once; an operator's later edits stay.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.apps.registry import Apps
from django.conf import settings
from django.utils import timezone

from soc.runtime.queues import queue_of

LATEST_BEAT_MIGRATION = ("django_celery_beat", "0019_alter_periodictasks_options")
"""What a migration that creates schedules depends on."""

RUN_NOW_EXPIRES = 300
REQUEST_PREFIX = "now: "
"""How the names of requested runs start, which sets them apart from schedules."""


@dataclass(frozen=True)
class Every:
    """A fixed interval in whole seconds."""

    seconds: int


@dataclass(frozen=True)
class Cron:
    """A crontab line in the site's time zone (crontab(5), day of week 0 is Sunday)."""

    minute: str = "*"
    hour: str = "*"
    day_of_week: str = "*"
    day_of_month: str = "*"
    month_of_year: str = "*"


@dataclass(frozen=True)
class Schedule:
    """A periodic task; ``expires`` is the age in seconds at which a waiting run is dropped."""

    name: str
    task: str
    when: Every | Cron
    expires: int
    description: str
    kwargs: dict[str, Any] = field(default_factory=dict)


def create(apps: Apps, *schedules: Schedule) -> None:
    """Create the schedules that do not exist yet, by name, and notify beat.

    ``apps`` is the registry of a migration: historical models send no signals, so that beat must
    be notified here.
    """
    periodic_task = apps.get_model("django_celery_beat", "PeriodicTask")
    for schedule in schedules:
        periodic_task.objects.get_or_create(
            name=schedule.name,
            defaults={
                "task": schedule.task,
                "queue": queue_of(schedule.task).name,
                "kwargs": json.dumps(schedule.kwargs),
                "expire_seconds": schedule.expires,
                "description": schedule.description,
                **_timing(apps, schedule.when),
            },
        )
    _notify_beat(apps)


def remove(apps: Apps, *tasks: str) -> None:
    """Delete the schedules of tasks that are no more, and notify beat; for migrations."""
    apps.get_model("django_celery_beat", "PeriodicTask").objects.filter(task__in=tasks).delete()
    _notify_beat(apps)


def _notify_beat(apps: Apps) -> None:
    apps.get_model("django_celery_beat", "PeriodicTasks").objects.update_or_create(
        ident=1, defaults={"last_update": timezone.now()}
    )


def _timing(apps: Apps, when: Every | Cron) -> dict[str, Any]:
    if isinstance(when, Every):
        model = apps.get_model("django_celery_beat", "IntervalSchedule")
        return {"interval": model.objects.get_or_create(every=when.seconds, period="seconds")[0]}
    model = apps.get_model("django_celery_beat", "CrontabSchedule")
    fields = {**vars(when), "timezone": settings.TIME_ZONE}
    return {"crontab": model.objects.filter(**fields).first() or model.objects.create(**fields)}


def next_run(schedule: Any, now: datetime) -> datetime | None:
    """Return when beat will next run a periodic task, or None if it will not.

    Beat records runs up to 2.5 s before they are due, and none while it is down: whole periods
    are added to the last one.
    """
    if not schedule.enabled or (schedule.expires and schedule.expires <= now):
        return None
    if schedule.clocked:
        at: datetime = schedule.clocked.clocked_time
        return max(at, now)
    if schedule.start_time and schedule.start_time > now:
        start: datetime = schedule.due_start_time(timezone.get_current_timezone())
        return start
    last: datetime = schedule.last_run_at or schedule.date_changed
    if schedule.interval:
        every: timedelta = schedule.interval.schedule.run_every
        return last + every * ((now - last) // every + 1)
    wait = schedule.schedule.is_due(timezone.localtime(last)).next
    # Celery's "now" lies before this one: a run on the hour must not show a second too early.
    return timezone.now() + timedelta(seconds=wait)


def request_run(
    name: str,
    task: str,
    by: str,
    kwargs: dict[str, Any] | None = None,
    args: Sequence[Any] = (),
) -> None:
    """Ask beat to run a task once, now.

    A web request must never wait on the broker, which may block publishers without end while it
    is short of memory; beat finds the row within a second.
    """
    from django_celery_beat.models import ClockedSchedule, PeriodicTask

    now = timezone.now()
    clocked = ClockedSchedule.objects.create(clocked_time=now)
    PeriodicTask.objects.create(
        name=f"{REQUEST_PREFIX}{name[:150]} ({now:%Y-%m-%d %H:%M:%S.%f})",
        task=task,
        queue=queue_of(task).name,
        args=json.dumps(args),
        kwargs=json.dumps(kwargs or {}),
        clocked=clocked,
        one_off=True,
        expire_seconds=RUN_NOW_EXPIRES,
        description=f"Requested by {by}.",
    )


def forget_finished_runs(older_than: timedelta) -> int:
    """Delete requested runs that are done; return how many."""
    from django_celery_beat.models import ClockedSchedule, PeriodicTask

    limit = timezone.now() - older_than
    finished = PeriodicTask.objects.filter(
        one_off=True, enabled=False, clocked__clocked_time__lt=limit
    )
    deleted: int = finished.delete()[1].get(PeriodicTask._meta.label, 0)
    ClockedSchedule.objects.filter(periodictask=None, clocked_time__lt=limit).delete()
    return deleted
