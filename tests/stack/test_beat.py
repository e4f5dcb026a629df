"""Two beats, one active: what happens to due tasks when one of them, or what it needs, fails.

`make bench BENCH=beat_faults` does the same at length.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from beats import PROBE, TASK, Beats, Plan, dispatched, doubled
from harness import Stack, run, wait_for
from soc.runtime.queues import TASK_EXCHANGE

SCHEDULES = 50
PERIOD = 5
"""Seconds between two runs of a schedule."""


@pytest.fixture(scope="module")
def beats(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beats]:
    """The site with two beats, and a consumer of what they dispatch."""
    with Beats(stack, tmp_path_factory.mktemp("beats")).running() as running:
        yield running


@pytest.fixture(scope="module")
def plan(beats: Beats) -> Plan:
    """Schedules that run during all tests of this module."""
    return beats.schedule(SCHEDULES, PERIOD)


def wait_for_all(beats: Beats, plan: Plan, moment: float) -> None:
    """Wait until every schedule has run again since a moment."""
    everyone = set(range(plan.count))

    def all_ran() -> bool:
        return {message.number for message in beats.since(moment)} >= everyone

    wait_for("a run of every schedule", all_ran)


def test_only_one_of_two_beats_dispatches(beats: Beats, plan: Plan) -> None:
    wait_for_all(beats, plan, plan.first_due)
    wait_for_all(beats, plan, time.time())
    assert len({message.host for message in beats.since(plan.first_due)}) == 1
    assert doubled(plan, beats.messages()) == {}


def test_a_killed_leader_is_replaced_and_no_run_is_doubled(beats: Beats, plan: Plan) -> None:
    host = beats.active()
    container = beats.containers()[host]
    moment = time.time()
    run("docker", "kill", "--signal=KILL", container)
    try:
        beats.taken_over(moment, former=host)
    finally:
        run("docker", "start", container)
    wait_for("its return", lambda: beats.ticks(container))
    wait_for_all(beats, plan, time.time())
    assert doubled(plan, beats.messages()) == {}


def test_a_stopped_leader_hands_over(beats: Beats, plan: Plan) -> None:
    """And the one that took over keeps the lead when the other is back."""
    host = beats.active()
    container = beats.containers()[host]
    moment = time.time()
    run("docker", "stop", container)
    try:
        new = beats.taken_over(moment, former=host)
    finally:
        run("docker", "start", container)
    wait_for("its return", lambda: beats.ticks(container))
    returned = time.time()
    wait_for_all(beats, plan, returned)
    assert {message.host for message in beats.since(returned)} == {new.host}
    assert doubled(plan, beats.messages()) == {}


def test_a_leader_that_was_paused_doubles_nothing(beats: Beats, plan: Plan) -> None:
    host = beats.active()
    container = beats.containers()[host]
    moment = time.time()
    run("docker", "pause", container)
    try:
        beats.taken_over(moment, former=host)
    finally:
        run("docker", "unpause", container)
    wait_for_all(beats, plan, time.time())
    assert beats.active() != host
    assert doubled(plan, beats.messages()) == {}


def test_what_waits_for_the_broker_comes_once_and_in_no_burst(beats: Beats, plan: Plan) -> None:
    """Of the runs that came due without a broker each schedule has one left, at most."""
    beats.stack.compose("stop", "rabbitmq")
    down = time.time()
    time.sleep(2 * PERIOD)
    beats.stack.compose("up", "--detach", "--no-recreate", "--wait", "rabbitmq")
    beats.let_beat_use_any_key()
    up = time.time()
    wait_for_all(beats, plan, up)
    wait_for_all(beats, plan, time.time())
    ran = dispatched(plan, beats.messages())
    for number in range(plan.count):
        missed = plan.turns(number, down, up)
        assert len(missed) > 1
        assert sum(len(ran[number, turn]) for turn in missed) <= 1
    assert doubled(plan, beats.messages()) == {}


def test_what_is_known_is_dispatched_without_a_database(beats: Beats, plan: Plan) -> None:
    """By a beat that is alone: of two, the other might hold the lease."""
    beats.scale(1)
    wait_for_all(beats, plan, time.time())
    beats.stack.compose("stop", "mariadb")
    try:
        wait_for_all(beats, plan, time.time() + PERIOD)
    finally:
        beats.stack.compose("up", "--detach", "--no-recreate", "--wait", "mariadb")
    wait_for_all(beats, plan, time.time())
    assert doubled(plan, beats.messages()) == {}


def test_an_edit_is_live_without_a_restart(beats: Beats, plan: Plan) -> None:
    """A row that was never run, saved as the admin saves it."""
    number = SCHEDULES + 1
    beats.stack.data(f"""
from django.utils import timezone
from django_celery_beat.models import ClockedSchedule, PeriodicTask
answer = PeriodicTask.objects.create(
    name="{PROBE} {number}", task="{TASK}", args="[{number}]",
    exchange="{TASK_EXCHANGE}", routing_key="{PROBE}",
    clocked=ClockedSchedule.objects.create(clocked_time=timezone.now()), one_off=True,
).pk
""")
    wait_for("its run", lambda: [m for m in beats.messages() if m.number == number])


def test_a_broken_row_is_disabled_and_the_others_run_on(beats: Beats, plan: Plan) -> None:
    name = f"{PROBE} {SCHEDULES - 1}"
    beats.stack.data(f"""
from django_celery_beat.models import PeriodicTask, PeriodicTasks
answer = PeriodicTask.objects.filter(name="{name}").update(kwargs="{{")
PeriodicTasks.update_changed()
""")
    enabled = f"""
from django_celery_beat.models import PeriodicTask
answer = PeriodicTask.objects.get(name="{name}").enabled
"""
    wait_for("it to be disabled", lambda: not beats.stack.data(enabled))
    others = set(range(SCHEDULES - 1))
    moment = time.time()
    wait_for("the others", lambda: {m.number for m in beats.since(moment)} >= others)
