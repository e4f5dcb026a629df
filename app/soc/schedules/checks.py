"""System checks of what the database says of the code: ``manage.py check --database default``."""

import inspect
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from django.apps import apps
from django.core import checks
from django.db import DatabaseError

from soc.runtime.celery import app
from soc.runtime.queues import TASK_QUEUES


@checks.register(checks.Tags.database)
def check_schedules(
    databases: Sequence[str] | None = None, **_: Any
) -> Iterable[checks.CheckMessage]:
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


SECRET = re.compile(
    r"(?i)pass(word|wd|phrase)|secret|token|credential|(api|private|access|sealing)_?key"
)
"""Names of what must not travel with a task: queues, Flower and failed tasks show arguments."""


@checks.register
def check_task_arguments(**_: Any) -> list[checks.CheckMessage]:
    """Check that no task takes a secret; it looks one up where it runs."""
    # Not import_default_modules, which itself runs the checks.
    app.loader.autodiscover_tasks([config.name for config in apps.get_app_configs()])
    return [
        checks.Error(
            f"The task {name} takes {parameter!r}, which looks like a secret: give it the key of "
            "a row or the name of a file instead.",
            id="soc.E002",
        )
        for name, task in sorted(app.tasks.items())
        for parameter in inspect.signature(task.run).parameters
        if SECRET.search(parameter)
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
            if named := [name for name in arguments[1] if SECRET.search(name)]:
                yield f"gives its task {named[0]!r}, which looks like a secret"
        except (TypeError, ValueError) as error:
            yield f"has arguments that {schedule.task} does not take: {error}"
    if schedule.queue not in {queue.name for queue in TASK_QUEUES}:
        yield f"goes to the queue {schedule.queue!r}, which no worker consumes"
    if not (schedule.expires or schedule.expire_seconds):
        yield "has no expiry: after an outage its runs would come in a flood"
