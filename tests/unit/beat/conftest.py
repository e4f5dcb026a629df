"""Gives the tests of beat rows, clocks and beats that share one database."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from soc.beat.database import connect
from soc.beat.keeper import Keeper
from soc.beat.options import Options
from soc.beat.plan import Run
from soc.beat.rows import Reader
from soc.beat.timing import SECOND, moment


class Beat:
    """The database's side of one beat, and a clock that the test moves."""

    def __init__(self, name: str) -> None:
        rows = connect(1)
        self.keeper = Keeper(rows, Reader(rows), name, Options())
        self.now = moment(timezone.now())
        self.seconds = 0.0

    def work(self, after: float = 0) -> list[Run]:
        """Let some seconds pass and return what is granted."""
        self.now += round(after * SECOND)
        self.seconds += after
        return self.keeper.work(self.now, self.seconds)


@pytest.fixture
def no_schedules(db: None) -> None:
    PeriodicTask.objects.all().delete()


@pytest.fixture
def make_task(no_schedules: None) -> Any:
    """Create a schedule: every minute, its last run ``ago`` seconds ago."""

    def make(name: str = "task", ago: float = 59, every: int = 60, **values: Any) -> PeriodicTask:
        if not values.keys() & {"crontab", "clocked", "solar"}:
            interval = IntervalSchedule.objects.get_or_create(every=every, period="seconds")[0]
            values.setdefault("interval", interval)
        return PeriodicTask.objects.create(
            **{
                "name": name,
                "task": "soc.core.tasks.keep_house",
                "last_run_at": timezone.now() - timedelta(seconds=ago),
                **values,
            }
        )

    return make


@pytest.fixture
def beat(no_schedules: None) -> Beat:
    return Beat("one")


@pytest.fixture
def other(no_schedules: None) -> Beat:
    return Beat("two")
