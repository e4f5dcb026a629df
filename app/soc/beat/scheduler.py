"""Celery beat's scheduler on django-celery-beat's models.

``celery beat --scheduler soc.beat.scheduler:Scheduler``; ``docs/beat.md`` says how it behaves.
"""

import gc
import logging
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from datetime import timedelta
from functools import partial
from typing import Any

import celery.beat
from django.db import Error
from django.utils import timezone
from django_celery_beat.schedulers import DatabaseScheduler

from soc.beat import database, options, signals, status
from soc.beat.dispatch import Dispatcher
from soc.beat.keeper import Keeper
from soc.beat.plan import Run
from soc.beat.publish import Publisher, PublishResult
from soc.beat.rows import Reader
from soc.beat.stopping import uninterrupted
from soc.beat.timer import Timer
from soc.beat.timing import SECOND
from soc.beat.worker import Background, Inline

logger = logging.getLogger(__name__)

LONGEST_WAIT = 5.0
SHORTEST_WAIT = 0.05
"""Seconds between two ticks at least: what is due meanwhile goes in one batch."""

REPORT_EVERY = 10.0
SAMPLE_EVERY = 30.0
SIGN_OF_LIFE_EVERY = 1.0
CLOCK_STEP = 2.0
"""Seconds by which the wall clock must have been put back for the plan to be made again."""

FLUSH_FOR = 1.0
"""Seconds to wait for the broker's last confirms."""

LEAVE_WITHIN = 3.0
"""Seconds to wait at the end for a job of the database."""


class Scheduler(DatabaseScheduler):
    """Dispatches the schedules of the database; several may run, one is active.

    It is a DatabaseScheduler for two reasons: that class writes ``beat_schedule`` into rows, and
    django-celery-beat's admin warns of any other.
    """

    Publisher = Publisher

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.options = options.read()
        self.name = f"{socket.gethostname()}-{secrets.token_hex(4)}"
        self.counts = status.Counts()
        self._started_at = timezone.now()
        self._installed = False
        self._closed = False
        self._woken = 0.0
        self._overdue: int | None = None
        self._problems: deque[tuple[int, str]] = deque()
        self._report_timer = Timer(REPORT_EVERY)
        self._sample_timer = Timer(SAMPLE_EVERY)
        self._life_timer = Timer(SIGN_OF_LIFE_EVERY)
        celery.beat.Scheduler.__init__(self, *args, **kwargs)
        self.max_interval: float = min(self.max_interval, LONGEST_WAIT)

    def setup_schedule(self) -> None:
        """Connect; Celery does not call this for a scheduler that is only looked at."""
        self._worker = Inline() if database.vendor() == "sqlite" else Background("beat-database")
        self.keeper: Keeper = self._worker.submit(self._make_keeper).result()
        self._publisher = self.Publisher(self.app, self.options.TIMEOUT, self.options.PREBUILT)
        self._publisher.ready()
        self.dispatcher = Dispatcher(self._publisher, self.counts)
        self._worker.submit(self._install).result()
        self._job: Future[list[Run]] | None = None
        self._clocks = (self.now(), self.clock())

    def _make_keeper(self) -> Keeper:
        # Django's connections belong to the thread that asks for them.
        rows = database.connect(self.options.TIMEOUT)
        return Keeper(rows, Reader(rows), self.name, self.options)

    @property
    def schedule(self) -> dict[str, Any]:
        """The enabled schedules as Celery's entries, read again: for introspection only."""
        return dict(self.all_as_schedule())

    def enabled_models_qs(self) -> Any:
        """Return all enabled schedules, whatever their hour."""
        return self.Model.objects.enabled()

    @property
    def is_leader(self) -> bool:
        """Whether this beat is the active one."""
        return self.keeper.leader

    @property
    def database_is_up(self) -> bool:
        """Whether the last statement worked."""
        return self.keeper.is_up

    @staticmethod
    def now() -> int:
        """Return the moment that the wall clock shows."""
        return time.time_ns() // 1000

    @staticmethod
    def clock() -> float:
        """Return seconds that go on while the machine sleeps."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    # --- The loop ----------------------------------------------------------------------------
    def tick(self, *_: Any, **__: Any) -> float:
        """Do what is due and return the seconds until there is more to do."""
        with uninterrupted():
            now, clock = self.now(), self.clock()
            self._collect()
            if self._job is None:
                self._watch_the_clock(now, clock)
                if clock >= self._next_job(now, clock):
                    self._job = self._worker.submit(self._use_database, now, clock)
                    self._collect()
            self._publish(self.now(), clock)
            return self._wait(self.now(), self.clock())

    def _collect(self) -> None:
        if self._job is not None and self._job.done():
            job, self._job = self._job, None
            self.dispatcher.push(job.result())

    def _next_job(self, now: int, clock: float) -> float:
        """Return when the database is to be used again; its thread is idle."""
        self._overdue = self.keeper.plan.next_due()
        return min(self.keeper.next_at(now, clock), self._life_timer.at)

    def _use_database(self, now: int, clock: float) -> list[Run]:
        self._install()
        granted = self.keeper.work(now, clock)
        if self._problems:
            problems = dict(self._problems.popleft() for _ in range(min(len(self._problems), 100)))
            self._try(partial(status.explain, problems))
        self._tell(clock)
        return granted

    def _publish(self, now: int, clock: float) -> None:
        entries = self.keeper.plan.entries if self.keeper.leader else None
        for result in self.dispatcher.work(now, clock, entries):
            self.keeper.published(result.run)
            if result.problem and not result.again:
                self._explain(result)
        self.counts.greatest_lag = max(self.counts.greatest_lag, self.lag(now))

    def _explain(self, result: PublishResult) -> None:
        """Have written what is wrong with a task that cannot be published at all, once."""
        message = result.run.entry.message
        if message.problem != result.problem:
            message.problem = result.problem
            self._problems.append((result.run.entry.key, result.problem))

    def _wait(self, now: int, clock: float) -> float:
        # A job that runs is looked at with the next batch.
        job = self._next_job(now, clock) if self._job is None else clock
        at = min(job, self.dispatcher.next_at(now, clock))
        self._woken = max(at, clock, self._woken + SHORTEST_WAIT)
        return min(self._woken - clock, self.max_interval)

    def _watch_the_clock(self, now: int, clock: float) -> None:
        before, then = self._clocks
        self._clocks = (now, clock)
        back = (clock - then) - (now - before) / SECOND
        if back > CLOCK_STEP:
            logger.warning("The clock was put back by %.1f s: the plan is made again", back)
            self.keeper.replan(now)

    def _install(self) -> None:
        """Write ``beat_schedule`` and Celery's own into rows, once there is a database."""
        if not self._installed:
            self._installed = self._try(self._install_entries)

    def _install_entries(self) -> None:
        self.install_default_entries({})
        self.update_from_dict(self.app.conf.beat_schedule)

    def update_from_dict(self, mapping: dict[str, Any]) -> None:
        """Write entries of the settings into rows; one that cannot be is logged."""
        for name, fields in mapping.items():
            try:
                self.Entry.from_entry(name, app=self.app, **fields)
            except Error:
                raise
            except Exception:
                logger.exception("The schedule %r of the settings cannot be used", name)

    # --- What it reports -----------------------------------------------------------------------
    def lag(self, now: int) -> float:
        """Return the age of the oldest run that is due and not published, in seconds."""
        dues = (self.dispatcher.oldest_due(), self._overdue)
        return max([0.0, *((now - due) / SECOND for due in dues if due is not None)])

    def _tell(self, clock: float) -> None:
        if self.keeper.is_up and self._report_timer.is_due(clock):
            self._try(self._report)
            if self.keeper.leader and self._sample_timer.is_due(clock):
                self._try(self._sample)
        if self._life_timer.is_due(clock):
            signals.ticked.send(type(self), scheduler=self)

    def _report(self) -> None:
        status.report(
            self.name,
            self._started_at,
            self.keeper.leader,
            len(self.keeper.plan.entries),
            self.counts,
            self._publisher.blocked_since,
        )

    def _sample(self) -> None:
        status.sample(self.counts, timedelta(days=self.options.HISTORY_DAYS))

    @staticmethod
    def _try(write: Callable[[], object]) -> bool:
        """Write something that may as well be missing."""
        try:
            write()
        except Error as error:
            logger.warning("Beat's own rows could not be written: %s", error)
            return False
        return True

    # --- The end -----------------------------------------------------------------------------
    def should_sync(self) -> bool:
        """Tell Celery that there is nothing to sync: run data is written as it arises."""
        return False

    def sync(self) -> None:
        """Do nothing, see ``should_sync``."""

    def close(self) -> None:
        """Publish what is due, give the rest and the lease back; a second call does nothing."""
        if self._closed or not hasattr(self, "keeper"):
            return
        self._closed = True
        with uninterrupted():
            self._wait_for_the_database()
            self._publisher.connects = False
            self._publish(self.now(), self.clock())
            self._publisher.close(FLUSH_FOR)
            # What the broker has not confirmed until now.
            self._publish(self.now(), self.clock())
            if self._job is None:
                self._job = self._worker.submit(self._leave)
                self._wait_for_the_database()
            self._worker.shutdown()
        # The interpreter's end looks for cycles several times: half a second of CPU.
        gc.freeze()

    def _wait_for_the_database(self) -> None:
        if self._job is not None and not wait([self._job], LEAVE_WITHIN).done:
            logger.warning("The database does not answer: the lease ends by itself")
        self._collect()

    def _leave(self) -> list[Run]:
        self.keeper.release(self.now(), self.dispatcher.take_back())
        if self.keeper.is_up:
            self._try(partial(status.forget, self.name))
        signals.closed.send(type(self), scheduler=self)
        return []
