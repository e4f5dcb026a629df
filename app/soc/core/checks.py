"""System checks of what the database says of the code: ``manage.py check --database default``."""

import inspect
import json
from collections.abc import Iterator
from typing import Any

from django.core import checks
from django.db import DatabaseError

from soc.celery import app
from soc.queues import TASK_QUEUES


@checks.register(checks.Tags.database)
def check_schedules(databases: list[str] | None = None, **_: Any) -> list[checks.CheckMessage]:
    """Check that every enabled schedule names a task, a queue and arguments that exist."""
    from django_celery_beat.models import PeriodicTask

    if not databases:
        return []
    try:
        schedules = list(PeriodicTask.objects.filter(enabled=True))
    except DatabaseError:
        # Before the first migration there are no tables and so no schedules.
        return []
    return [
        checks.Error(f"Schedule {schedule.name!r} {problem}.", obj=schedule, id="soc.E001")
        for schedule in schedules
        for problem in problems_of(schedule)
        if not schedule.task.startswith("celery.")
    ]


def problems_of(schedule: Any) -> Iterator[str]:
    """Yield what is wrong with one periodic task."""
    app.loader.import_default_modules()
    task = app.tasks.get(schedule.task)
    if task is None:
        yield f"names the task {schedule.task!r}, which no application registers"
    else:
        try:
            arguments = json.loads(schedule.args), json.loads(schedule.kwargs)
            inspect.signature(task.run).bind(*arguments[0], **arguments[1])
        except (TypeError, ValueError) as error:
            yield f"has arguments that {schedule.task} does not take: {error}"
    if schedule.queue not in {queue.name for queue in TASK_QUEUES}:
        yield f"goes to the queue {schedule.queue!r}, which no worker consumes"
    if not (schedule.expires or schedule.expire_seconds):
        yield "has no expiry: after an outage its runs would come in a flood"
