"""Stores what the stream brings: each event once, however often it comes.

A batch is one transaction: the events, what applications read out of them, the signs of life of
their robots and the counts. Anyone who acknowledges messages does so after it.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

from django.db import (
    DataError,
    Error,
    IntegrityError,
    connection,
    transaction,
)
from django.utils import timezone

from soc.events import clocks, identity
from soc.events.bodies import Malformed
from soc.events.models import (
    LONGEST_PROBLEM,
    Bot,
    Derived,
    EventSource,
    StreamSettings,
    later,
)
from soc.events.readers import Arrival, registered
from soc.events.shapes import WindowsEvent
from soc.events.statements import greatest, insert, least, upsert

REMEMBERED = 10.0
"""Seconds for which robots, sources and settings are remembered."""

ANY_KIND = "event"
"""The kind of life sign that every stored event is."""

_OF_DATA = {1153, 1264, 1292, 1300, 1366, 1406}
"""MariaDB's errors that lie in a value although mysqlclient calls them operational: a packet too
large, a value out of range or incorrect, letters that the table cannot hold, a text too long."""

_COLUMNS = (
    *("digest", "bot_id", "source_id", "record_id", "event_id", "level", "at", "received_at"),
    *("stale", "problem", "raw"),
)
COUNTS = ("stored", "duplicates", "stale", "problems", "dropped", "expired", "refused")


class Refusal(NamedTuple):
    """A message of a batch, by its place, that cannot be stored, and why."""

    place: int
    reason: str


class _Message(NamedTuple):
    place: int
    event: WindowsEvent


@dataclass
class IngestCounts:
    """What became of the messages of a batch; the stale and the problems are stored, too."""

    stored: int = 0
    duplicates: int = 0
    stale: int = 0
    problems: int = 0
    dropped: int = 0
    expired: int = 0
    refused: int = 0

    def add(self, other: "IngestCounts") -> None:
        """Add the counts of another batch."""
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass
class Taken:
    """What became of a batch, and of each message that cannot be stored."""

    counts: IngestCounts = field(default_factory=IngestCounts)
    refusals: list[Refusal] = field(default_factory=list)


@dataclass
class _IngestBatch:
    """What one transaction writes."""

    now: datetime
    stale_before: datetime
    counts: IngestCounts = field(default_factory=IngestCounts)
    expired_before: datetime | None = None
    arrivals: list[Arrival] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    problems: dict[bytes, str] = field(default_factory=dict)
    derived: dict[type[Derived], list[Derived]] = field(default_factory=dict)
    seen: dict[tuple[int, str], datetime | None] = field(default_factory=dict)
    delays: dict[int, float] = field(default_factory=dict)
    dropped: dict[int, int] = field(default_factory=dict)

    def see(self, bot: int, kind: str, at: datetime | None) -> None:
        """Note a sign of life; a stale event has no time and only counts as arrived."""
        self.seen[bot, kind] = later(self.seen.get((bot, kind)), at)

    def measure(self, bot: int, at: datetime) -> None:
        """Note by how much an event comes after its time."""
        seconds = (self.now - at).total_seconds()
        self.delays[bot] = min(seconds, self.delays.get(bot, seconds))


@dataclass(frozen=True)
class _Source:
    key: int
    allowed: bool


class _Memory:
    """Robots, sources and settings, so that a batch of known ones asks the database nothing."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Read everything again when it is needed next."""
        self._until = 0.0
        self._bots: dict[str, Bot] = {}
        self._sources: dict[tuple[str, str], _Source] = {}
        self.settings = StreamSettings()

    def refresh(self) -> None:
        """Read everything again if it is old."""
        if time.monotonic() < self._until:
            return
        self.settings = StreamSettings.current()
        self._bots = identity.by_name()
        self._sources = {
            (source.provider, source.channel): _Source(source.pk, source.allowed)
            for source in EventSource.objects.only("provider", "channel", "allowed")
        }
        self._until = time.monotonic() + REMEMBERED

    def source(self, event: WindowsEvent) -> _Source:
        """Return the source of an event; a new one is not allowed."""
        key = event.provider, event.channel
        if key not in self._sources:
            identity = {"provider": event.provider, "channel": event.channel}
            EventSource.objects.bulk_create([EventSource(**identity)], ignore_conflicts=True)
            source = EventSource.objects.get(**identity)
            self._sources[key] = _Source(source.pk, source.allowed)
        return self._sources[key]

    def bot(self, event: WindowsEvent) -> int:
        """Return the key of an event's robot; a new one has no site."""
        bot = self._bots.get(event.host)
        if bot is None:
            bot = self._bots[event.host] = identity.find(event.host) or _new_bot(event)
        elif event.addresses and bot.addresses != list(event.addresses):
            bot.addresses = list(event.addresses)
            Bot.objects.filter(pk=bot.pk).update(addresses=bot.addresses)
        return bot.pk


def _new_bot(event: WindowsEvent) -> Bot:
    new = Bot(host=event.host, addresses=list(event.addresses))
    Bot.objects.bulk_create([new], ignore_conflicts=True)
    return Bot.objects.get(host=event.host)


class Ingest:
    """Stores batches of messages, for one thread; ``instance`` is the name it counts under."""

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self._memory = _Memory()

    def take(self, messages: Sequence[WindowsEvent | Malformed]) -> Taken:
        """Store what could be read of a batch.

        Raises:
            django.db.Error: the database is away or not as it should be; the batch may be taken
                again as a whole.
        """
        taken = Taken()
        readable = []
        for place, message in enumerate(messages):
            if isinstance(message, Malformed):
                taken.refusals.append(Refusal(place, str(message)))
            else:
                readable.append(_Message(place, message))
        self._store_or_split(readable, taken)
        if taken.refusals:
            now = timezone.now()
            refused = _IngestBatch(now, now, IngestCounts(refused=len(taken.refusals)))
            _count(refused, self._instance)
            taken.counts.refused = refused.counts.refused
        return taken

    def _store_or_split(self, messages: Sequence[_Message], taken: Taken) -> None:
        """Store messages; a batch that cannot be stored is split until the culprit is alone."""
        if not messages:
            return
        try:
            taken.counts.add(self._store([message.event for message in messages]))
        except Exception as error:
            # Half of a transaction may have been remembered, or a robot has been deleted.
            self._memory.forget()
            if not _lies_in_the_data(error):
                raise
            if len(messages) == 1:
                words = f"it could not be stored: {_words(error)}"
                taken.refusals.append(Refusal(messages[0].place, words))
                return
            middle = len(messages) // 2
            self._store_or_split(messages[:middle], taken)
            self._store_or_split(messages[middle:], taken)

    def _store(self, events: Sequence[WindowsEvent]) -> IngestCounts:
        self._memory.refresh()
        now, settings = timezone.now(), self._memory.settings
        batch = _IngestBatch(
            now, settings.stale_before(now), expired_before=settings.expired_before
        )
        for event in events:
            self._sort(event, batch)
        with transaction.atomic():
            for model in sorted(batch.derived, key=lambda model: model._meta.label):
                _insert_derived(batch.derived[model], batch)
            _insert_events(batch)
            # Rows that every worker writes to come last: they are locked until the end.
            _note_signs_of_life(batch)
            _note_delays(batch)
            _note_dropped(batch)
            _count(batch, self._instance)
        return batch.counts

    def _sort(self, event: WindowsEvent, batch: _IngestBatch) -> None:
        """Decide what becomes of an event, and have it read."""
        source = self._memory.source(event)
        if not source.allowed:
            batch.dropped[source.key] = batch.dropped.get(source.key, 0) + 1
            batch.counts.dropped += 1
            return
        if batch.expired_before and event.at < batch.expired_before:
            batch.counts.expired += 1
            return
        bot = self._memory.bot(event)
        at = min(event.at, batch.now)
        arrival = Arrival(event, bot, at, batch.now, event.at < batch.stale_before)
        batch.arrivals.append(arrival)
        batch.sources.append(source.key)
        fresh_at = None if arrival.stale else at
        batch.see(bot, ANY_KIND, fresh_at)
        batch.measure(bot, event.at)
        for reader in registered():
            try:
                rows = reader.read(arrival)
            except Exception as error:
                # Whatever a reader makes of an event, the event itself is stored.
                _note_problem(batch, event.digest, f"{reader.kind}: {_words(error)}")
                continue
            for row in rows:
                batch.derived.setdefault(type(row), []).append(row)
            if rows:
                batch.see(bot, reader.kind, fresh_at)


def _lies_in_the_data(error: Exception) -> bool:
    """Return whether it is of use to look for one message that is to blame.

    Everything that the database says of itself is waited for instead.
    """
    if isinstance(error, DataError | IntegrityError):
        return True
    if isinstance(error, Error):
        return bool(error.args) and error.args[0] in _OF_DATA
    return True


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _note_problem(batch: _IngestBatch, digest: bytes, words: str) -> None:
    clean = words.encode("utf-8", "replace").decode("utf-8").replace("\0", "?")
    batch.problems.setdefault(digest, clean[:LONGEST_PROBLEM])


# --- Writing ------------------------------------------------------------------------------------


def _insert_derived(rows: list[Derived], batch: _IngestBatch) -> None:
    rows.sort(key=attrgetter("digest"))
    model = type(rows[0])
    try:
        with transaction.atomic():
            model._default_manager.bulk_create(rows, ignore_conflicts=True)
        return
    except Exception as error:
        if not _lies_in_the_data(error):
            raise
    for row in rows:
        try:
            with transaction.atomic():
                row.pk = None
                model._default_manager.bulk_create([row], ignore_conflicts=True)
        except Exception as error:
            if not _lies_in_the_data(error):
                raise
            _note_problem(batch, bytes(row.digest), f"{model._meta.label}: {_words(error)}")


def _insert_events(batch: _IngestBatch) -> None:
    # In one order in every worker, so that two never wait for each other.
    rows = sorted(_event_rows(batch), key=itemgetter(_COLUMNS.index("at"), 0))
    if not rows:
        return
    batch.counts.stored = insert("events_event", _COLUMNS, rows)
    batch.counts.duplicates = len(rows) - batch.counts.stored
    batch.counts.stale = sum(arrival.stale for arrival in batch.arrivals)
    batch.counts.problems = len(batch.problems)


def _event_rows(batch: _IngestBatch) -> Iterator[tuple[Any, ...]]:
    """Yield the values of the columns."""
    now = connection.ops.adapt_datetimefield_value(batch.now)
    problems = batch.problems
    for (event, bot, _, _, stale), source in zip(batch.arrivals, batch.sources, strict=True):
        # What Django makes of a time in UTC, for a tenth of the price.
        at = str(event.at).removesuffix("+00:00")
        yield (
            *(event.digest, bot, source, event.record_id, event.event_id, event.level),
            *(at, now, stale, problems.get(event.digest, ""), event.raw),
        )


def _note_signs_of_life(batch: _IngestBatch) -> None:
    moment = connection.ops.adapt_datetimefield_value
    now = moment(batch.now)
    rows = [(*key, moment(batch.seen[key]), now) for key in sorted(batch.seen)]
    times = {name: greatest(name) for name in ("at", "arrived_at")}
    upsert("events_botseen", ("bot_id", "kind"), times, rows)


def _note_delays(batch: _IngestBatch) -> None:
    slot = connection.ops.adapt_datetimefield_value(clocks.slot(batch.now))
    rows = [(bot, slot, seconds) for bot, seconds in sorted(batch.delays.items())]
    upsert("events_botdelay", ("bot_id", "slot"), {"seconds": least("seconds")}, rows)


def _note_dropped(batch: _IngestBatch) -> None:
    if not batch.dropped:
        return
    now = connection.ops.adapt_datetimefield_value(batch.now)
    with connection.cursor() as cursor:
        for key, count in sorted(batch.dropped.items()):
            cursor.execute(
                "UPDATE events_eventsource SET dropped = dropped + %s, dropped_at = %s "
                "WHERE id = %s",
                (count, now, key),
            )


def _count(batch: _IngestBatch, instance: str) -> None:
    values = [getattr(batch.counts, name) for name in COUNTS]
    if not any(values):
        return
    minute = batch.now.replace(second=0, microsecond=0)
    row = (connection.ops.adapt_datetimefield_value(minute), instance, *values)
    sums = {name: f"{name} + {{new}}" for name in COUNTS}
    upsert("events_ingestcount", ("minute", "instance"), sums, [row])
