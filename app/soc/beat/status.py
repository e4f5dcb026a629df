"""What a beat says about itself: rows for a board, reasons for an administrator."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connections
from django.utils import timezone
from django_celery_beat.models import PeriodicTask

from soc.beat.models import Instance, LagSample, TaskOptions
from soc.beat.rows import Broken

GONE_AFTER = timedelta(hours=1)
"""An instance that has not been heard of for that long is deleted."""

MICROSECOND = timedelta(microseconds=1)
CANDIDATE_FOR = timedelta(seconds=30)
"""An instance heard of within this time may take the lease over."""


@dataclass
class Counts:
    """What happened since the start, and since the last sample."""

    published: int = 0
    lost: int = 0
    sampled: int = 0
    greatest_lag: float = 0.0


def report(
    name: str,
    started_at: datetime,
    leader: bool,
    schedules: int,
    counts: Counts,
    blocked_since: datetime | None = None,
) -> None:
    """Write the instance's row."""
    values = {
        "blocked_since": blocked_since,
        "leader": leader,
        "started_at": started_at,
        "ticked_at": timezone.now(),
        "lag": counts.greatest_lag,
        "schedules": schedules,
        "published": counts.published,
        "lost": counts.lost,
    }
    if not Instance.objects.filter(pk=name).update(**values):
        Instance.objects.create(name=name, **values)


def sample(counts: Counts, keep: timedelta) -> None:
    """Write one point of the history and delete what is older than its retention period."""
    now = timezone.now()
    LagSample.objects.create(
        at=now, lag=counts.greatest_lag, published=counts.published - counts.sampled
    )
    counts.sampled, counts.greatest_lag = counts.published, 0.0
    LagSample.objects.filter(at__lt=now - keep).delete()
    Instance.objects.filter(ticked_at__lt=now - GONE_AFTER).delete()


def forget(name: str) -> None:
    """Delete the row of an instance that stopped in order."""
    Instance.objects.filter(pk=name).delete()


def disable(broken: Sequence[Broken]) -> None:
    """Disable rows that no schedule can be made of, and say why where the admin shows it."""
    PeriodicTask.objects.filter(pk__in=[row.key for row in broken]).update(enabled=False)
    explain({row.key: f"Disabled by beat: {row.reason}" for row in broken})


def explain(problems: dict[int, str]) -> None:
    """Write the problems of schedules that still exist, many at once."""
    existing = PeriodicTask.objects.filter(pk__in=problems).values_list("pk", flat=True)
    features = connections[existing.db].features
    TaskOptions.objects.bulk_create(
        [
            TaskOptions(task_id=key, problem=problems[key], problem_at=timezone.now())
            for key in existing
        ],
        batch_size=200,
        update_conflicts=True,
        update_fields=["problem", "problem_at"],
        unique_fields=["task"] if features.supports_update_conflicts_with_target else None,
    )


def mend(keys: Iterable[int]) -> None:
    """Remove the problems of schedules that work again."""
    TaskOptions.objects.filter(pk__in=list(keys)).update(problem="", problem_at=None)
