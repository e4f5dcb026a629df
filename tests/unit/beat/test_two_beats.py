"""Days of two beats on one database, which are killed, paused and stopped at any time.

The clock is the test's; lease and renewal are 450 times as long as in earnest, so that days pass
in a second.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection
from django_celery_beat.models import (
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
)
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from soc.beat.database import SQLite
from soc.beat.dispatch import Dispatcher
from soc.beat.keeper import Keeper
from soc.beat.models import Lease, TaskOptions
from soc.beat.options import Options
from soc.beat.plan import Run
from soc.beat.publish import PublishResult
from soc.beat.rows import Reader
from soc.beat.status import Counts
from soc.beat.timing import SECOND, as_datetime, moment

OPTIONS = Options(LEASE=2700, RENEW=900, POLL=86400)
STEP, DAYS = 450, 2
FAILOVER = round(OPTIONS.LEASE) + 2 * STEP
START = moment(datetime(2026, 3, 1, tzinfo=UTC))
END = DAYS * 86400


class Clock:
    """Seconds since the start."""

    def __init__(self) -> None:
        self.seconds = 0

    @property
    def now(self) -> int:
        return START + self.seconds * SECOND


class OnTheClock(SQLite):
    """A database that tells the test's time."""

    clock: Clock

    @property
    def now(self) -> str:  # type: ignore[override]
        return f"'{self.text(self.clock.now)}'"

    def later(self) -> str:
        return "%s"

    def later_parameters(self, seconds: float) -> tuple[Any, ...]:
        return (self.text(self.clock.now + round(seconds * SECOND)),)


class Beat:
    """One beat, whose broker takes everything at once."""

    waits = False

    def __init__(self, name: str, clock: Clock, sent: list[tuple[str, int]]) -> None:
        rows = OnTheClock(connection)
        rows.clock = self.clock = clock
        self.keeper = Keeper(rows, Reader(rows), name, OPTIONS)
        self.dispatcher = Dispatcher(self, Counts())
        self.sent = sent
        self._results: list[PublishResult] = []

    def ready(self) -> bool:
        return True

    def send(self, runs: Sequence[Run]) -> Sequence[Run]:
        self.sent += [(run.entry.message.name, run.due) for run in runs]
        self._results += [PublishResult(run) for run in runs]
        return ()

    def results(self) -> Iterator[PublishResult]:
        while self._results:
            yield self._results.pop(0)

    def publish(self) -> None:
        """Publish what is due now."""
        entries = self.keeper.plan.entries if self.keeper.leader else None
        for result in self.dispatcher.work(self.clock.now, self.clock.seconds, entries):
            self.keeper.published(result.run)

    def work(self) -> None:
        self.dispatcher.push(self.keeper.work(self.clock.now, self.clock.seconds))
        self.publish()

    def stop(self) -> None:
        self.publish()
        self.keeper.release(self.clock.now, self.dispatcher.take_back())

    def next_at(self) -> float:
        """Return the second at which it has something to do, apart from asking for the lease."""
        due = self.dispatcher.oldest_due()
        at = math.inf if due is None else math.ceil((due - START) / SECOND)
        if self.keeper.leader:
            at = min(at, math.ceil(self.keeper.next_at(self.clock.now, self.clock.seconds)))
        return at


troubles = st.lists(
    st.tuples(
        st.integers(1, END - 1),
        st.integers(0, 1),
        st.sampled_from(["kill", "pause", "stop"]),
        st.integers(60, 4 * 3600),
    ),
    max_size=12,
)


def spread(found: list[tuple[int, int, str, int]]) -> list[tuple[int, int, str, int]]:
    """Leave out what happens to a beat that is away."""
    back = [0, 0]
    kept = []
    for at, who, what, length in sorted(found):
        if at > back[who]:
            back[who] = at + length
            kept.append((at, who, what, length))
    return kept


def live(found: list[tuple[int, int, str, int]]) -> list[tuple[str, int]]:
    """Return the names and the due times of what two beats send."""
    clock, sent = Clock(), []
    beats: list[Beat | None] = [Beat("0", clock, sent), Beat("1", clock, sent)]
    away: list[Beat | None] = [None, None]
    begins = {(at, who): (what, at + length) for at, who, what, length in found}
    ends = {(at + length, who) for at, who, _, length in found}
    # The one that stays asks for the lease within a second.
    stops = {at + 1 for at, _, what, _ in found if what == "stop"}
    times = sorted({*range(0, END, STEP), *(at for at, _ in [*begins, *ends] if at < END), *stops})
    for at in times:
        up = [beat for beat in beats if beat is not None]
        while (soon := min((beat.next_at() for beat in up), default=math.inf)) < at:
            clock.seconds = max(clock.seconds, int(soon))
            for beat in up:
                if beat.next_at() <= clock.seconds:
                    beat.work()
        clock.seconds = at
        for who in (0, 1):
            if (at, who) in ends:
                beats[who] = away[who] or Beat(f"{who} at {at}", clock, sent)
            if (at, who) in begins:
                what, _ = begins[at, who]
                if what == "stop":
                    beats[who].stop()
                away[who] = beats[who] if what == "pause" else None
                beats[who] = None
        for beat in filter(None, beats):
            beat.work()
    return sent


def is_excused(second: float, found: list[tuple[int, int, str, int]]) -> bool:
    """Whether a run may be lost: in the window of a failover, or with nobody there."""
    if any(what != "stop" and at <= second <= at + FAILOVER for at, _, what, _ in found):
        return True
    gone = {who for at, who, _, length in found if at <= second <= at + length + STEP}
    return gone == {0, 1}


def make_schedules() -> dict[str, set[int]]:
    """Create one of each kind and return the seconds at which it is due."""
    for model in (PeriodicTask, Lease, ClockedSchedule, CrontabSchedule, IntervalSchedule):
        model.objects.all().delete()
    last = as_datetime(START)
    interval = IntervalSchedule.objects.create(every=420, period="seconds")
    crontab = CrontabSchedule.objects.create(minute="17", hour="*", timezone="UTC")
    once = ClockedSchedule.objects.create(clocked_time=as_datetime(START + 100_000 * SECOND))
    PeriodicTask.objects.create(name="interval", task="t", interval=interval, last_run_at=last)
    PeriodicTask.objects.create(name="crontab", task="t", crontab=crontab, last_run_at=last)
    PeriodicTask.objects.create(name="once", task="t", clocked=once, one_off=True)
    again = PeriodicTask.objects.create(
        name="at least once", task="t", interval=interval, last_run_at=last
    )
    TaskOptions.objects.create(task=again, delivery=TaskOptions.Delivery.AT_LEAST_ONCE)
    every = set(range(420, END, 420))
    return {
        "interval": every,
        "crontab": set(range(17 * 60, END, 3600)),
        "once": {100_000},
        "at least once": every,
    }


@pytest.mark.usefixtures("no_schedules")
@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(troubles.map(spread))
def test_no_run_is_doubled_and_none_lost_outside_a_failover(
    found: list[tuple[int, int, str, int]],
) -> None:
    due = make_schedules()
    sent = Counter((name, (at - START) // SECOND) for name, at in live(found))
    doubled = [run for run, times in sent.items() if times > 1 and run[0] != "at least once"]
    assert doubled == []
    for name, seconds in due.items():
        ran = {second for of, second in sent if of == name}
        assert ran <= seconds
        # The runs of the last step are granted, and not yet due.
        lost = {at for at in seconds - ran if at < END - STEP and not is_excused(at, found)}
        assert lost == set(), name
        event(f"{name}: {len(seconds - ran) // 10 * 10} lost in windows")
