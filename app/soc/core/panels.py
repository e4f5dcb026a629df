"""The stack's own part of the board: queues and workers, beat, failed tasks, room on the disks."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter

from django.conf import settings
from django.db.models import QuerySet
from django.urls import reverse
from django_celery_beat.models import PeriodicTask

from soc.beat.models import Instance, LagSample
from soc.common.charts import sparkline
from soc.common.panels import Panel, Problem
from soc.common.text import age, counted
from soc.core import beats, storage
from soc.core.models import ALIVE_FOR, Heartbeat, QueueSample, TaskFailure
from soc.core.severity import Severity
from soc.runtime import queues
from soc.schedules.schedules import REQUEST_PREFIX, next_run

HISTORY = timedelta(hours=1)
SAMPLE_IS_OLD = timedelta(seconds=60)
SILENT_SHOWN_FOR = timedelta(minutes=10)
"""Silent workers older than this are containers that were replaced, not workers to worry about."""

BEAT = "beat"
MOST_SCHEDULES = 200
NEXT_RUNS = 8
MOST_FAILURES = 10

_LEAST_DEPTH = 10
"""The depth that fills a sparkline at least: one waiting message must not look like a storm."""
_LEAST_LAG = 5
"""The same in seconds of beat's lag."""


@dataclass(frozen=True)
class WorkerState:
    """One process and its last sign of life."""

    instance: str
    seen_at: datetime
    alive: bool


def workers(heartbeats: QuerySet[Heartbeat], now: datetime) -> dict[str, list[WorkerState]]:
    """Return the processes of each service, the ones heard of last first."""
    found: dict[str, list[WorkerState]] = {}
    for heartbeat in heartbeats.order_by("-seen_at"):
        alive = now - heartbeat.seen_at < ALIVE_FOR
        worker = WorkerState(heartbeat.instance, heartbeat.seen_at, alive)
        known = found.setdefault(heartbeat.service, [])
        if not known or worker.alive or now - worker.seen_at < SILENT_SHOWN_FOR:
            known.append(worker)
    return found


# --- Queues and workers -------------------------------------------------------------------------


@dataclass(frozen=True)
class QueueState:
    """One queue with its worker; the numbers are None without a fresh sample."""

    queue: queues.Queue
    sampled_at: datetime | None
    depth: int | None
    consumers: int | None
    dead: int | None
    highest: int
    line: str
    workers: Sequence[WorkerState]

    @property
    def alive(self) -> int:
        """How many workers of the queue are alive."""
        return sum(worker.alive for worker in self.workers)

    @property
    def backs_up(self) -> bool:
        """Whether half of the messages that the queue may hold are waiting."""
        return self.depth is not None and self.depth * 2 >= self.queue.max_length

    @property
    def tone(self) -> str:
        """How the queue looks."""
        if not self.alive or self.consumers == 0 or self.backs_up:
            return "bad"
        return "warn" if self.depth is None or self.dead else "ok"


def read_queues(now: datetime) -> list[QueueState]:
    """Return the state of every queue of the catalogue."""
    known = workers(Heartbeat.objects.exclude(service=BEAT), now)
    samples = QueueSample.objects.filter(at__gt=now - HISTORY).order_by("queue", "at")
    history = {name: list(group) for name, group in groupby(samples, key=attrgetter("queue"))}
    return [
        _queue_state(now, queue, history.get(queue.name, []), known.get(queue.service, []))
        for queue in queues.QUEUES
    ]


def _queue_state(
    now: datetime,
    queue: queues.Queue,
    samples: Sequence[QueueSample],
    workers: Sequence[WorkerState],
) -> QueueState:
    last = samples[-1] if samples else None
    fresh = last if last and now - last.at < SAMPLE_IS_OLD else None
    alive = sum(worker.alive for worker in workers)
    # The embedded stack's file broker cannot count consumers.
    sampled = fresh.consumers if fresh else None
    highest = max((sample.depth for sample in samples), default=0)
    return QueueState(
        queue=queue,
        sampled_at=last.at if last else None,
        depth=fresh.depth if fresh else None,
        consumers=alive if settings.EMBEDDED else sampled,
        dead=fresh.dead if fresh else None,
        highest=highest,
        line=sparkline(now, ((s.at, s.depth) for s in samples), max(highest, _LEAST_DEPTH)),
        workers=workers,
    )


def _problem_of_broker(leader: Instance | None, now: datetime) -> Iterator[Problem]:
    if leader and (text := beats.blocked(leader, now)):
        yield Problem("bad", text, "queues")


def _problems_of_queues(states: Sequence[QueueState], now: datetime) -> Iterator[Problem]:
    question = "is worker-shared or the broker down?"
    sampled_at = max((state.sampled_at for state in states if state.sampled_at), default=None)
    if sampled_at is None:
        yield Problem("bad", f"No queue sample in the last hour: {question}", "queues")
    elif now - sampled_at >= SAMPLE_IS_OLD:
        yield Problem("bad", f"No queue sample for {age(sampled_at, now)}: {question}", "queues")
    for state in states:
        yield from _problems_of_queue(state, now)


def _problems_of_queue(state: QueueState, now: datetime) -> Iterator[Problem]:
    name, worker = state.queue.name, state.queue.service
    if not state.workers:
        yield Problem("bad", f"{worker} has not been heard of: nothing empties {name}.", "queues")
    elif not state.alive:
        silence = age(state.workers[0].seen_at, now)
        text = f"{worker} has been silent for {silence}: nothing empties {name}."
        yield Problem("bad", text, "queues")
    elif state.consumers == 0:
        yield Problem("bad", f"{worker} is alive but does not consume {name}.", "queues")
    if state.backs_up:
        yield Problem("bad", f"{name} backs up: {state.depth} messages wait.", "queues")
    if state.dead:
        verb = "waits" if state.dead == 1 else "wait"
        text = f"{counted(state.dead, 'dead letter')} of {name} {verb} for a person."
        yield Problem("warn", text, "queues")


# --- Beat ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NextRun:
    """The next run of one schedule."""

    name: str
    at: datetime
    link: str


@dataclass(frozen=True)
class BeatState:
    """The scheduler's processes, the leader first, their lag in an hour, and the next runs."""

    now: datetime
    workers: Sequence[WorkerState]
    instances: Sequence[Instance]
    highest: float
    line: str
    runs: Sequence[NextRun]
    schedules: int
    incomplete: bool

    @property
    def alive(self) -> bool:
        """Whether any beat ticks."""
        return any(worker.alive for worker in self.workers)

    @property
    def leader(self) -> Instance | None:
        """The active beat, if there is one."""
        return next((instance for instance in self.instances if instance.leader), None)


def read_beat(now: datetime) -> BeatState:
    """Return the scheduler's state and the next runs."""
    enabled = PeriodicTask.objects.filter(enabled=True).exclude(name__startswith=REQUEST_PREFIX)
    related = enabled.select_related("interval", "crontab", "solar", "clocked")
    schedules = list(related.order_by("name")[: MOST_SCHEDULES + 1])
    lags = list(LagSample.objects.filter(at__gt=now - HISTORY).values_list("at", "lag"))
    highest = max((lag for _, lag in lags), default=0)
    return BeatState(
        now=now,
        workers=workers(Heartbeat.objects.filter(service=BEAT), now).get(BEAT, []),
        instances=list(beats.alive(now)),
        highest=highest,
        line=sparkline(now, lags, max(highest, _LEAST_LAG)),
        runs=_next_runs(schedules[:MOST_SCHEDULES], now),
        schedules=min(len(schedules), MOST_SCHEDULES),
        incomplete=len(schedules) > MOST_SCHEDULES,
    )


def _next_runs(schedules: Iterable[PeriodicTask], now: datetime) -> list[NextRun]:
    page = "admin:django_celery_beat_periodictask_change"
    runs = [
        NextRun(schedule.name, at, reverse(page, args=[schedule.pk]))
        for schedule in schedules
        if (at := next_run(schedule, now))
    ]
    return sorted(runs, key=attrgetter("at", "name"))[:NEXT_RUNS]


def _problems_of_beat(beat: BeatState, now: datetime) -> Iterator[Problem]:
    if not beat.workers:
        yield Problem("bad", "Beat has not been heard of: no schedule runs.", "beat")
    elif not beat.alive:
        silence = age(beat.workers[0].seen_at, now)
        yield Problem("bad", f"Beat has been silent for {silence}: no schedule runs.", "beat")
    elif beat.instances and not beat.leader:
        yield Problem("bad", "No beat leads: no schedule runs.", "beat")
    elif beat.leader and (severity := beats.lag_severity(beat.leader.lag)):
        text = f"Beat starts its schedules {round(beat.leader.lag)} s late."
        yield Problem("bad" if severity == Severity.CRITICAL else "warn", text, "beat")


# --- Failed tasks, and room on the disks ----------------------------------------------------------


def _failures(_: datetime) -> list[TaskFailure]:
    return list(TaskFailure.objects.defer("traceback", "arguments")[:MOST_FAILURES])


def _problems_of_failures(failures: Sequence[TaskFailure], now: datetime) -> Iterator[Problem]:
    """Complain of what is recent; older failures stay listed without a claim on attention."""
    recent = sum(now - failure.at < timedelta(hours=1) for failure in failures)
    if recent:
        tasks = f"{recent} or more tasks" if recent == MOST_FAILURES else counted(recent, "task")
        yield Problem("warn", f"{tasks} failed in the last hour.", "failures")


def _problems_of_storage(left: storage.Free, _: datetime) -> Iterator[Problem]:
    if left.text:
        yield Problem("bad" if left.severity == Severity.CRITICAL else "warn", left.text, "queues")


PANELS = (
    # The cause comes before what follows from it.
    Panel("storage", lambda _: storage.free(), _problems_of_storage, column="top", position=0),
    Panel("broker", beats.leader, _problem_of_broker, column="top", position=1),
    Panel("queues", read_queues, _problems_of_queues, "core/panel_queues.html", position=10),
    Panel(
        *("beat", read_beat, _problems_of_beat, "core/panel_beat.html"),
        column="narrow",
        position=10,
    ),
    Panel(
        *("failures", _failures, _problems_of_failures, "core/panel_failures.html"),
        permission="core.view_taskfailure",
        column="narrow",
        position=30,
    ),
)
