"""What runs next: entries, their due times, and a heap that drops what was changed.

Nothing here knows Django, Celery, a broker or a clock: moments come in, runs come out.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from soc.beat.timing import SECOND, Interval, Started, Timing

GRACE = 30 * SECOND
"""A run this late in microseconds is still run; a later one has been missed."""

SET_BACK = 3 * 3600 * SECOND
"""A clock put back by less than this many microseconds repeats no crontab's runs (cron(8))."""


@dataclass(slots=True, eq=False)
class Entry:
    """One enabled schedule.

    ``last`` is the due time of its last run, ``created`` counts where there was none. ``once``
    means that it ends with its first run, ``until`` that it ends then. ``catch_up`` asks for one
    run after missed ones; ``early`` runs are recorded before they are published; ``finished``
    ones have had their only run and end without another.
    """

    key: int
    timing: Timing
    created: int
    last: int | None = None
    once: bool = False
    until: int | None = None
    catch_up: bool = False
    early: bool = True
    finished: bool = False
    fingerprint: int = 0
    message: Any = None
    due: int | None = field(default=None, init=False)
    ended: bool = field(default=False, init=False)


@dataclass(slots=True, eq=False)
class Run:
    """One run of an entry; ``previous`` is the due time of the run before it.

    ``silent`` runs only end their entry: nothing is published.
    """

    entry: Entry
    due: int
    previous: int | None
    final: bool = False
    silent: bool = False


class Plan:
    """The entries by key, and which of them are due."""

    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}
        self._heap: list[tuple[int, int, Entry]] = []
        self._order = count()

    def add(self, entry: Entry, now: int, floor: int = 0) -> None:
        """Add an entry or put it in the place of the one with its key.

        Runs that repeat and were due at ``floor`` or before are recorded already.
        """
        self.entries[entry.key] = entry
        if entry.finished:
            self._set_due(entry, now)
            return
        base = _base(entry, now)
        if entry.early and not entry.once and floor <= now + GRACE:
            base = max(base, floor)
        self._set_due(entry, entry.timing.after(base))

    def remove(self, key: int) -> None:
        """Forget an entry; what the heap holds of it is skipped."""
        self.entries.pop(key, None)

    def next_due(self) -> int | None:
        """Return the earliest due time, None without one."""
        heap = self._heap
        while heap and not self._is_current(heap[0]):
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def take(self, now: int, horizon: int) -> list[Run]:
        """Return the runs due up to ``horizon`` microseconds from now and plan the next ones.

        Of several times that have passed only the latest counts. One that is later than GRACE
        has been missed: it is dropped, unless the entry catches up or would never run.
        """
        runs: list[Run] = []
        while (due := self.next_due()) is not None and due <= now + horizon:
            entry = heapq.heappop(self._heap)[2]
            if entry.finished or (entry.until is not None and due >= entry.until):
                runs.append(self._end(Run(entry, due, entry.last, final=True, silent=True)))
                continue
            if due < now:
                due = _latest(entry, due, now)
            if due is None:
                self._set_due(entry, entry.timing.after(now))
                continue
            run = Run(entry, due, entry.last, final=entry.once)
            runs.append(run)
            entry.last = due
            if entry.once:
                self._end(run)
            else:
                self._set_due(entry, entry.timing.after(max(due, now)))
        return runs

    def replan(self, now: int) -> None:
        """Plan everything that repeats again, because the clock was put back."""
        for entry in self.entries.values():
            if not entry.once and not entry.ended:
                self._set_due(entry, entry.timing.after(max(_base(entry, now), now)))

    def _end(self, run: Run) -> Run:
        # The row is still enabled until the run is recorded: the entry stays known as ended.
        run.entry.ended = True
        run.entry.due = None
        return run

    def _set_due(self, entry: Entry, due: int | None) -> None:
        entry.due = due
        if due is None:
            return
        heapq.heappush(self._heap, (due, next(self._order), entry))
        if len(self._heap) > 2 * len(self.entries) + 1000:
            self._heap = [item for item in self._heap if self._is_current(item)]
            heapq.heapify(self._heap)

    def _is_current(self, item: tuple[int, int, Entry]) -> bool:
        due, _, entry = item
        return entry.due == due and self.entries.get(entry.key) is entry

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries.values())


def _base(entry: Entry, now: int) -> int:
    """Return the moment after which an entry is due; it lies ahead where a clock was put back."""
    base = entry.created if entry.last is None else entry.last
    timing = entry.timing.timing if isinstance(entry.timing, Started) else entry.timing
    limit = GRACE if isinstance(timing, Interval) else SET_BACK
    return now if base > now + limit else base


def _latest(entry: Entry, due: int, now: int) -> int | None:
    """Return the latest time that has passed and is to be run, None if it was missed."""
    latest = due
    if latest < now - GRACE:
        recent = entry.timing.after(now - GRACE)
        if recent is None or recent > now:
            return due if entry.catch_up or entry.once else None
        latest = recent
    while (later := entry.timing.after(latest)) is not None and later <= now:
        latest = later
    return latest
