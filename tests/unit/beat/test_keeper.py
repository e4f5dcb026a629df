"""The lease, the grants and the edits, on a real database."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.utils import timezone
from django_celery_beat.models import (
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    PeriodicTasks,
)

from soc.beat.models import Instance, Lease, TaskOptions
from soc.beat.timing import SECOND, moment

MakeTask = Callable[..., PeriodicTask]


def names(runs: list[Any]) -> list[str]:
    return [run.entry.message.name for run in runs]


def expire_the_lease() -> None:
    Lease.objects.update(expires_at=timezone.now() - timedelta(seconds=1))


def test_a_granted_run_is_recorded_before_it_is_due(beat: Any, make_task: MakeTask) -> None:
    task = make_task(ago=59)
    changed = task.date_changed
    (run,) = beat.work()
    task.refresh_from_db()
    assert run.due > beat.now
    assert moment(task.last_run_at) == run.due
    assert task.total_run_count == 1
    assert task.date_changed == changed


def test_only_one_of_two_is_active(beat: Any, other: Any, make_task: MakeTask) -> None:
    make_task()
    assert len(beat.work()) == 1
    assert other.work() == []
    assert (beat.keeper.leader, other.keeper.leader) == (True, False)


def test_a_lease_that_ended_is_taken_and_no_run_doubled(
    beat: Any, other: Any, make_task: MakeTask
) -> None:
    make_task()
    (run,) = beat.work()
    expire_the_lease()
    assert other.work() == []
    assert other.keeper.leader
    (later,) = other.work(after=60)
    assert later.due == run.due + 60 * SECOND


def test_a_leader_that_was_paused_is_granted_nothing(
    beat: Any, other: Any, make_task: MakeTask
) -> None:
    make_task()
    beat.work()
    expire_the_lease()
    other.work()
    assert beat.work(after=70) == []
    assert not beat.keeper.leader
    assert len(other.work(after=60)) == 1


def test_a_lease_that_ended_and_nobody_took_goes_on(beat: Any, make_task: MakeTask) -> None:
    make_task()
    beat.work()
    expire_the_lease()
    assert len(beat.work(after=61)) == 1
    assert beat.keeper.leader


def test_a_lease_given_up_is_taken_at_once_with_what_was_not_sent(
    beat: Any, other: Any, make_task: MakeTask
) -> None:
    task = make_task(ago=59)
    before = task.last_run_at
    (run,) = beat.work()
    beat.keeper.release(beat.now, [run])
    task.refresh_from_db()
    assert (task.last_run_at, task.total_run_count) == (before, 0)
    (again,) = other.work()
    assert again.due == run.due


def test_a_one_off_given_back_is_enabled_again(beat: Any, other: Any, make_task: MakeTask) -> None:
    clocked = ClockedSchedule.objects.create(clocked_time=timezone.now() + timedelta(seconds=1))
    task = make_task(clocked=clocked, one_off=True, last_run_at=None)
    (run,) = beat.work()
    task.refresh_from_db()
    assert not task.enabled
    beat.keeper.release(beat.now, [run])
    assert len(other.work()) == 1


def test_a_row_with_an_old_last_run_doubles_nothing(
    beat: Any, other: Any, make_task: MakeTask
) -> None:
    """An admin form that was opened before a run writes the old time back."""
    task = make_task(ago=59)
    (run,) = beat.work()
    PeriodicTask.objects.filter(pk=task.pk).update(last_run_at=task.last_run_at)
    PeriodicTasks.update_changed()
    assert beat.work(after=1) == []
    expire_the_lease()
    assert run.due not in [later.due for later in other.work(after=2)]


@pytest.mark.parametrize(
    "edit",
    [
        lambda task: PeriodicTask.objects.filter(pk=task.pk).update(kwargs='{"a": 1}'),
        lambda task: IntervalSchedule.objects.update(every=7),
        lambda task: TaskOptions.objects.create(task=task, missed="once"),
        lambda task: PeriodicTask.objects.filter(pk=task.pk).update(priority=3),
        lambda task: PeriodicTask.objects.filter(pk=task.pk).update(queue="email"),
    ],
)
def test_any_edit_is_found_and_nothing_else_is_made_anew(
    beat: Any, make_task: MakeTask, edit: Callable[[PeriodicTask], object]
) -> None:
    crontab = CrontabSchedule.objects.create(minute="0", hour="4")
    same = make_task("same", interval=None, crontab=crontab)
    task = make_task()
    beat.work()
    entries = dict(beat.keeper.plan.entries)
    edit(task)
    PeriodicTasks.update_changed()
    beat.work(after=1)
    assert beat.keeper.plan.entries[task.pk] is not entries[task.pk]
    assert beat.keeper.plan.entries[same.pk] is entries[same.pk]


def test_an_edit_that_nobody_told_of_is_found_within_a_minute(
    beat: Any, make_task: MakeTask
) -> None:
    task = make_task(every=3600)
    beat.work()
    PeriodicTask.objects.filter(pk=task.pk).update(enabled=False)
    beat.work(after=1)
    assert task.pk in beat.keeper.plan.entries
    beat.work(after=61)
    assert task.pk not in beat.keeper.plan.entries


def test_a_run_requested_now_is_granted_with_the_next_look(beat: Any, make_task: MakeTask) -> None:
    beat.work()
    clocked = ClockedSchedule.objects.create(clocked_time=timezone.now())
    task = make_task(clocked=clocked, one_off=True, last_run_at=None)
    assert len(beat.work(after=1)) == 1
    task.refresh_from_db()
    assert (task.enabled, task.total_run_count) == (False, 0)
    assert beat.work(after=5) == []


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"args": "{"}, "positional arguments are not JSON"),
        ({"kwargs": "[]"}, "keyword arguments are not a JSON object"),
        ({"headers": "nothing"}, "headers are not JSON"),
    ],
)
def test_a_broken_row_is_disabled_with_its_reason_and_the_others_run(
    beat: Any, make_task: MakeTask, values: dict[str, str], reason: str
) -> None:
    broken = make_task("broken", **values)
    make_task("sound")
    assert names(beat.work()) == ["sound"]
    broken.refresh_from_db()
    assert not broken.enabled
    assert reason in broken.beat_options.problem


def test_a_broken_crontab_and_a_row_without_schedule_are_disabled(
    beat: Any, make_task: MakeTask
) -> None:
    crontab = CrontabSchedule.objects.create(minute="99")
    make_task("crontab", interval=None, crontab=crontab)
    nothing = make_task("nothing")
    PeriodicTask.objects.filter(pk=nothing.pk).update(interval=None)
    beat.work()
    problems = TaskOptions.objects.values_list("problem", flat=True)
    assert len(problems) == 2
    assert any("99" in problem for problem in problems)
    assert any("no schedule" in problem for problem in problems)


def test_a_row_that_was_mended_has_no_problem_any_more(beat: Any, make_task: MakeTask) -> None:
    task = make_task(args="{")
    beat.work()
    PeriodicTask.objects.filter(pk=task.pk).update(args="[]", enabled=True)
    PeriodicTasks.update_changed()
    beat.work(after=1)
    assert TaskOptions.objects.get(task=task).problem == ""


def test_an_expired_schedule_is_disabled_without_a_run(beat: Any, make_task: MakeTask) -> None:
    task = make_task(expires=timezone.now())
    assert beat.work() == []
    task.refresh_from_db()
    assert not task.enabled


def test_at_least_once_is_recorded_when_it_was_published(beat: Any, make_task: MakeTask) -> None:
    task = make_task()
    TaskOptions.objects.create(task=task, delivery="at_least_once")
    (run,) = beat.work()
    task.refresh_from_db()
    assert moment(task.last_run_at) < run.due
    beat.keeper.published(run)
    beat.work(after=3)
    task.refresh_from_db()
    assert moment(task.last_run_at) == run.due


def fail(*_: object) -> None:
    raise OperationalError("gone")


def test_without_a_database_a_beat_that_is_alone_goes_on(
    beat: Any, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task()
    beat.work()
    with monkeypatch.context() as patch:
        patch.setattr(beat.keeper._database, "change", fail)
        assert names(beat.work(after=61)) == ["task"]
        assert not beat.keeper.is_up
    beat.work(after=10)
    task.refresh_from_db()
    assert beat.keeper.is_up
    assert task.total_run_count == 2


def test_what_was_granted_is_run_though_the_look_for_edits_fails(
    beat: Any, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(ago=30)
    beat.work()
    monkeypatch.setattr(beat.keeper._database, "poll", fail)
    assert names(beat.work(after=30)) == ["task"]
    task.refresh_from_db()
    assert task.total_run_count == 1


def test_without_a_database_a_beat_that_is_not_alone_waits(
    beat: Any, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    Instance.objects.create(
        name="two", leader=False, started_at=timezone.now(), ticked_at=timezone.now(),
        lag=0, schedules=0, published=0, lost=0,
    )  # fmt: skip
    make_task()
    beat.work()
    with monkeypatch.context() as patch:
        patch.setattr(beat.keeper._database, "change", fail)
        assert beat.work(after=61) == []
        assert beat.work(after=1) == []
    assert names(beat.work(after=10)) == ["task"]
