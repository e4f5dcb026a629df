"""How far behind the queues are, told from samples and counts: nobody asks the broker."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter

from django.db.models import F, Sum
from django.urls import reverse

from soc.alerts.conditions import Condition
from soc.alerts.spans import in_words
from soc.core.models import QueueSample
from soc.core.severity import Severity
from soc.events.models import IngestCount
from soc.runtime.queues import QUEUES, Queue

FRESH = timedelta(seconds=60)
"""A sample that is older says nothing about now."""

RATE_OVER = timedelta(minutes=5)
"""The time over which rates are taken."""

LOOKED_BACK = timedelta(days=2)
"""Samples are kept no longer."""

RULE = ("events", "queue")
"""The rule under which a stream's depth is reported."""

WARNED, CRITICAL = 0.25, 0.5
"""Shares of a stream's bound from which its depth is reported: at the bound messages are lost."""

_KINDS = ("stored", "duplicates", "dropped", "expired", "refused")
"""All counts of messages; the others are among those stored."""


@dataclass(frozen=True)
class Backlog:
    """How a queue is now: None where nothing is known.

    ``age`` is a bound: the oldest message has waited no longer than that. ``taken`` is how many
    messages a second were taken out, which is counted for a stream only; ``change`` how much the
    queue grew a second.
    """

    queue: Queue
    depth: int | None
    dead: int | None
    age: timedelta | None
    change: float | None
    taken: float | None

    @property
    def came(self) -> float | None:
        """How many messages a second came in."""
        if self.change is None or self.taken is None:
            return None
        return max(0.0, self.change + self.taken)

    @property
    def to_drain(self) -> timedelta | None:
        """The time until it is empty at this rate; None if it does not shrink."""
        if self.depth == 0:
            return timedelta(0)
        if not self.depth or self.change is None or self.change >= 0:
            return None
        return timedelta(seconds=round(self.depth / -self.change))


def read(now: datetime) -> list[Backlog]:
    """Return the backlog of every queue of the catalogue, in three queries."""
    samples = _samples(now)
    return [_backlog(queue, samples.get(queue.name, ()), now) for queue in QUEUES]


def conditions(now: datetime) -> Iterator[Condition]:
    """Yield how near each stream's queue is to its bound; nothing where its depth is unknown.

    At the bound the broker refuses what comes, and that is lost of a publisher that wants no
    confirmation, such as Logstash's RabbitMQ output.
    """
    for one in read(now):
        if one.queue.stream and one.depth is not None:
            yield _fullness(one, one.depth, now)


def _fullness(one: Backlog, depth: int, now: datetime) -> Condition:
    application, rule = RULE
    bound = one.queue.max_length
    share = depth / bound
    severity = Severity.CRITICAL if share >= CRITICAL else Severity.WARNING
    facts: dict[str, object] = {"Waiting": f"{depth:,}", "Bound": f"{bound:,}"}
    if one.change is not None and one.change > 0:
        full = timedelta(seconds=round(max(0, bound - depth) / one.change))
        facts["Full"] = f"in {in_words(full)} at this rate"
    if one.taken is not None:
        facts["Taken out"] = f"{one.taken:,.1f} a second"
    return Condition(
        application=application,
        rule=rule,
        subject=f"queue {one.queue.name}",
        severity=severity if share >= WARNED else Severity.OK,
        observed_at=now,
        summary=f"{depth:,} messages wait, {share:.0%} of what the queue holds. When it is full, "
        f"the broker refuses more: what Logstash sends then is lost. Look at {one.queue.service}.",
        facts=facts,
        link=reverse("queues"),
    )


def age(queue: str, now: datetime) -> timedelta | None:
    """Return how long the oldest message of a queue has waited at most; None if none waits.

    A queue of which nothing has been known recently counts as empty: others report that.
    """
    states = {state.queue.name: state for state in read(now)}
    return states[queue].age


def _samples(now: datetime) -> dict[str, list[QueueSample]]:
    """Return the samples of late of every queue, the oldest first."""
    late = QueueSample.objects.filter(at__gt=now - RATE_OVER, at__lte=now).order_by("queue", "at")
    return {name: list(group) for name, group in groupby(late, key=attrgetter("queue"))}


def _backlog(queue: Queue, samples: Sequence[QueueSample], now: datetime) -> Backlog:
    last = samples[-1] if samples else None
    if last is None or now - last.at > FRESH:
        return Backlog(queue, None, None, None, None, None)
    taken = None
    if queue.stream:
        minutes = _taken_by_minute(now - RATE_OVER)
        taken = sum(count for _, count in minutes) / RATE_OVER.total_seconds()
    return Backlog(
        queue,
        depth=last.depth,
        dead=last.dead,
        age=_age(queue, last, now) if last.depth else None,
        change=_slope(samples),
        taken=taken,
    )


def _slope(samples: Sequence[QueueSample]) -> float | None:
    first, last = samples[0], samples[-1]
    seconds = (last.at - first.at).total_seconds()
    return (last.depth - first.depth) / seconds if seconds else None


def _taken_by_minute(since: datetime) -> list[tuple[datetime, int]]:
    """Return how many messages were taken out of the stream in each minute, the latest first."""
    total = sum((F(kind) for kind in _KINDS[1:]), F(_KINDS[0]))
    counts = IngestCount.objects.filter(minute__gte=since).order_by("-minute")
    return list(counts.values_list("minute").annotate(n=Sum(total)))


def _age(queue: Queue, last: QueueSample, now: datetime) -> timedelta:
    """Return how long the oldest message can have waited.

    A queue gives first what came first: the messages of a moment are gone when as many have been
    taken since then as there were. Without counts the queue must have been empty.
    """
    earlier = QueueSample.objects.filter(queue=queue.name, at__gt=now - LOOKED_BACK, at__lt=last.at)
    since = earlier.filter(depth=0).order_by("-at").values_list("at", flat=True).first()
    begin = since or now - LOOKED_BACK
    if queue.stream:
        samples = earlier.filter(at__gte=begin).order_by("-at").values_list("at", "depth")
        begin = _passed(samples, _taken_by_minute(begin)) or begin
    return now - begin


def _passed(
    samples: Iterable[tuple[datetime, int]], taken: Sequence[tuple[datetime, int]]
) -> datetime | None:
    """Return the latest moment whose messages have all been taken since; both latest first."""
    minutes = deque(taken)
    gone = 0
    for at, depth in samples:
        # Whole minutes only: what was taken before the moment must not count.
        while minutes and minutes[0][0] >= at:
            gone += minutes.popleft()[1]
        if gone >= depth:
            return at
    return None
