"""The broker's side of beat: publishes granted runs when they are due."""

import heapq
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import count

from soc.beat.plan import GRACE, Entry, Run
from soc.beat.publish import Publisher, PublishResult
from soc.beat.status import Counts
from soc.beat.timer import Timer
from soc.beat.timing import SECOND

RESEND_EVERY = 1.0
"""Seconds after which runs that wait for the broker are tried again."""

CONFIRMS_EVERY = 0.25
"""Seconds after which the broker's confirms are looked for at the latest."""

logger = logging.getLogger(__name__)


class Dispatcher:
    """Holds granted runs until they are due, and those that could not be sent.

    Of the runs of one schedule that wait for the broker only the newest is kept: when the broker
    comes back each task runs once.
    """

    def __init__(self, publisher: Publisher, counts: Counts) -> None:
        self._publisher = publisher
        self._counts = counts
        self._queue: list[tuple[int, int, Run]] = []
        self._order = count()
        self._waiting: dict[int, Run] = {}
        self._resend_timer = Timer(RESEND_EVERY)
        self._failures: defaultdict[tuple[str, str], list[str]] = defaultdict(list)

    def push(self, runs: Iterable[Run]) -> None:
        """Take granted runs."""
        for run in runs:
            heapq.heappush(self._queue, (run.due, next(self._order), run))

    def work(
        self, now: int, clock: float, entries: dict[int, Entry] | None
    ) -> Iterator[PublishResult]:
        """Publish what is due; yield runs that are done: published, or not to be.

        ``entries`` are the present ones, None if this beat is not active: the run of an entry
        that is not among them any more is dropped, that of an edited one is sent as edited.
        """
        due = self._due(now, entries)
        if (due or self._waiting) and self._publisher.ready():
            if self._waiting and self._resend_timer.is_due(clock):
                due += self._waiting.values()
                self._waiting = {}
            self._wait(self._publisher.send(due))
        else:
            self._wait(due)
        yield from filter(self._is_done, self._publisher.results())
        self._say_what_failed()

    def _is_done(self, result: PublishResult) -> bool:
        if not result.problem:
            self._counts.published += 1
            return True
        entry = result.run.entry
        if entry.early or not result.again:
            self._counts.lost += 1
            self._failures["lost", result.problem].append(entry.message.name)
            return True
        self._failures["to be repeated", result.problem].append(entry.message.name)
        self._wait([result.run])
        return False

    def _say_what_failed(self) -> None:
        """Log a line for each cause: a broker that fails does so for hundreds of runs at once."""
        for (what, problem), names in self._failures.items():
            logger.error("%d runs %s (%s, …): %s", len(names), what, names[0], problem)
        self._failures.clear()

    def _due(self, now: int, entries: dict[int, Entry] | None) -> list[Run]:
        due = []
        while self._queue and self._queue[0][0] <= now:
            run = heapq.heappop(self._queue)[2]
            if self._is_wanted(run, now, entries):
                due.append(run)
        return due

    def _is_wanted(self, run: Run, now: int, entries: dict[int, Entry] | None) -> bool:
        if entries is None and not run.entry.early:
            # Another beat is active and knows nothing of this run: it has its own.
            return False
        if run.due < now - 2 * GRACE and not (run.final or run.entry.catch_up):
            # This process stood still meanwhile.
            self._counts.lost += 1
            self._failures["lost", "beat stood still"].append(run.entry.message.name)
            return False
        if entries is not None and not run.final:
            if run.entry.key not in entries:
                return False
            run.entry = entries[run.entry.key]
        return True

    def _wait(self, runs: Iterable[Run]) -> None:
        for run in runs:
            self._waiting[run.entry.key] = run

    def next_at(self, now: int, clock: float) -> float:
        """Return the monotonic time at which there is work again."""
        at = float("inf")
        if self._queue:
            at = clock + max(self._queue[0][0] - now, 0) / SECOND
        if self._waiting:
            at = min(at, max(self._resend_timer.at, clock + CONFIRMS_EVERY))
        if self._publisher.waits:
            at = min(at, clock + CONFIRMS_EVERY)
        return at

    def oldest_due(self) -> int | None:
        """Return the due time of the oldest run that waits."""
        dues = [run.due for run in self._waiting.values()]
        if self._queue:
            dues.append(self._queue[0][0])
        return min(dues, default=None)

    def take_back(self) -> list[Run]:
        """Return all runs that were not sent; they will not be."""
        unsent = [*(run for _, _, run in self._queue), *self._waiting.values()]
        self._queue, self._waiting = [], {}
        return unsent
