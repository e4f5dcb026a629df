"""The database's side of beat: holds the lease, grants runs, finds edits.

A run is granted by the statement that renews the lease and records the run: either all of it
happened or nothing did, so that a beat which was paused, cut off or replaced grants no run that
another has granted. Runs are granted ahead of their time, a few seconds' worth at once; what a
beat has been granted it may publish whenever it can, since nobody else will.
"""

import logging
from collections import deque
from collections.abc import Iterable

from django.db import Error

from soc.beat import status
from soc.beat.database import Database, Record
from soc.beat.options import Options
from soc.beat.plan import Plan, Run
from soc.beat.rows import Changes, Reader
from soc.beat.timer import Backoff, Timer
from soc.beat.timing import SECOND

STANDBY_EVERY = 0.75
"""Seconds after which a beat without the lease asks for it again."""

COMPARE_EVERY = 60.0
"""Seconds after which the rows are compared even if nobody told of an edit."""

MARGIN = SECOND // 2
"""Runs are granted this many microseconds beyond the next renewal."""

logger = logging.getLogger(__name__)


class Keeper:
    """Decides which runs this beat may publish.

    ``now`` is a moment of the wall clock, ``clock`` a monotonic time in seconds.
    """

    def __init__(self, database: Database, reader: Reader, name: str, options: Options) -> None:
        self.plan = Plan()
        self.leader = False
        self.is_up = True
        self._database = database
        self._reader = reader
        self._name = name
        self._options = options
        self._epoch = 0
        self._alone = False
        self._mark: object = None
        self._asked: list[Run] = []
        self._published: deque[Run] = deque()
        self._records: dict[int, Record] = {}
        self._backoff = Backoff(1.0, 8.0)
        self._lease_timer = Timer(STANDBY_EVERY)
        self._record_timer = Timer(options.RENEW)
        self._poll_timer = Timer(options.POLL)
        self._compare_timer = Timer(COMPARE_EVERY)

    def work(self, now: int, clock: float) -> list[Run]:
        """Do what is due in the database and return the runs granted by it.

        Without the database a beat that is alone grants what it knows and records it later; one
        that is not must wait, because the other may hold the lease by then.
        """
        granted: list[Run] = []
        if clock >= self._backoff.at:
            try:
                self._work(now, clock, granted)
            except Error as error:
                self._backoff.failed(clock)
                self._failed(error)
            else:
                self._worked()
                return granted
        if self.leader and self._alone:
            granted += self._grant_alone(now)
        return granted

    def _work(self, now: int, clock: float, granted: list[Run]) -> None:
        """Add to ``granted``, which holds even if a later statement fails."""
        if not self.leader:
            if not self._lease_timer.is_due(clock):
                return
            self._ask_for_the_lease(now, clock)
            if not self.leader:
                return
        granted += self._grant_if_due(now, clock)
        if self.leader and self._poll_timer.is_due(clock) and self._find_edits(now, clock):
            granted += self._grant_if_due(now, clock)

    def next_at(self, now: int, clock: float) -> float:
        """Return the monotonic time at which ``work`` has something to do."""
        if clock < self._backoff.at:
            at = self._backoff.at
        elif not self.leader:
            return self._lease_timer.at
        else:
            at = min(self._record_timer.at, self._poll_timer.at)
        due = self.plan.next_due()
        if due is None or (not self.is_up and not self._alone):
            return at
        return min(at, clock + max(due - now, 0) / SECOND)

    def published(self, run: Run) -> None:
        """Note that a run which was not recorded before has been published; any thread may."""
        if not run.entry.early:
            self._published.append(run)

    def replan(self, now: int) -> None:
        """Make the plan again, because the wall clock was put back."""
        self.plan.replan(now)
        self._record_timer.pull()

    def release(self, now: int, unsent: Iterable[Run]) -> None:
        """Give the lease up at once, and back what was granted and not published.

        Without the database the lease ends by itself.
        """
        if not self.leader or not self.is_up:
            return
        until = now
        for run in sorted(unsent, key=lambda run: -run.due):
            if run.entry.early:
                record = self._records.get(run.entry.key)
                runs = (record.runs if record else 0) - 1
                enabled = True if run.final else None
                self._records[run.entry.key] = Record(run.entry.key, run.previous, runs, enabled)
                until = min(until, run.due - 1)
        try:
            self._record(until, 0)
        except Error as error:
            self._failed(error)
        self.leader = False

    # --- The lease ---------------------------------------------------------------------------
    def _ask_for_the_lease(self, now: int, clock: float) -> None:
        if (holder := self._database.holder()) is None:
            self._database.make_lease()
        self._database.take_lease(self._name, self._options.LEASE)
        holder = self._database.holder()
        if holder is None or holder.owner != self._name:
            return
        self._mark, self._alone = self._poll(now)
        changes = self._reader.all()
        self._epoch = holder.epoch
        self.plan = Plan()
        self._asked, self._records = [], {}
        self._published.clear()
        self._apply(changes, now, holder.recorded_until)
        self.leader = True
        self._record_timer.pull()
        self._compare_timer.is_due(clock)
        logger.warning("%s is active with %d schedules", self._name, len(self.plan.entries))

    def _stand_by(self) -> None:
        logger.warning("Another beat has taken the lease from %s", self._name)
        self.leader = False
        self.plan = Plan()
        self._asked, self._records = [], {}

    # --- Granting ----------------------------------------------------------------------------
    def _grant_if_due(self, now: int, clock: float) -> list[Run]:
        due = self.plan.next_due()
        if clock < self._record_timer.at and (due is None or due > now):
            return []
        horizon = round(self._options.RENEW * SECOND) + MARGIN
        self._ask(self.plan.take(now, horizon))
        if not self._record(now + horizon, self._options.LEASE):
            self._stand_by()
            return []
        self._record_timer.is_due(clock)
        return self._granted()

    def _grant_alone(self, now: int) -> list[Run]:
        self._ask(self.plan.take(now, 0))
        return self._granted()

    def _ask(self, runs: Iterable[Run]) -> None:
        for run in runs:
            self._asked.append(run)
            if run.entry.early or run.silent:
                self._note(run)

    def _granted(self) -> list[Run]:
        granted = [run for run in self._asked if not run.silent]
        self._asked = []
        return granted

    def _note(self, run: Run) -> None:
        key = run.entry.key
        known = self._records.get(key)
        runs = (known.runs if known else 0) + (not run.silent)
        enabled = False if run.final else None
        last = run.previous if run.silent else run.due
        self._records[key] = Record(key, last, runs, enabled)

    def _record(self, until: int, lease: float) -> bool:
        """Renew the lease and write the records; return whether it was still ours."""
        while self._published:
            self._note(self._published.popleft())
        records = list(self._records.values())
        if not self._database.record(self._name, self._epoch, lease, until, records):
            return False
        for record in records:
            entry = self.plan.entries.get(record.key)
            if record.enabled is False and entry is not None and entry.ended:
                self.plan.remove(record.key)
        self._records = {}
        return True

    # --- Edits -------------------------------------------------------------------------------
    def _poll(self, now: int) -> tuple[object, bool]:
        since = now - status.CANDIDATE_FOR // status.MICROSECOND
        mark, others = self._database.poll(self._name, since)
        return mark, not others

    def _find_edits(self, now: int, clock: float) -> bool:
        mark, self._alone = self._poll(now)
        if mark == self._mark and clock < self._compare_timer.at:
            return False
        changes = self._reader.changed(self.plan.entries)
        self._compare_timer.is_due(clock)
        self._mark = mark
        self._apply(changes, now)
        return True

    def _apply(self, changes: Changes, now: int, floor: int = 0) -> None:
        for key in changes.removed:
            self.plan.remove(key)
        for entry in changes.entries:
            old = self.plan.entries.get(entry.key)
            if old is not None and old.ended:
                # Its end is not recorded yet; that takes it from the enabled rows.
                continue
            if old is not None and old.last is not None and not entry.once:
                # The row's may be older: a form that was opened before a run writes it back.
                entry.last = max(old.last, entry.last or 0)
            self.plan.add(entry, now, floor)
        for row in changes.broken:
            logger.error("Schedule %r is disabled: %s", row.name, row.reason)
        if changes.broken:
            status.disable(changes.broken)
        if changes.mended:
            status.mend(changes.mended)

    # --- Problems -----------------------------------------------------------------------------
    def _failed(self, error: Error) -> None:
        self._database.close()
        if self.is_up:
            self.is_up = False
            what = "known tasks are dispatched" if self._alone else "another beat may take over"
            logger.error("The database fails, %s: %s", what if self.leader else "waiting", error)

    def _worked(self) -> None:
        self._backoff.worked()
        if not self.is_up:
            self.is_up = True
            logger.warning("The database works again")
