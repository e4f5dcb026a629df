"""From rows to entries, and what has changed since they were read."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from celery import schedules

from soc.beat.database import BUCKET, FIELDS, Database
from soc.beat.models import TaskOptions
from soc.beat.plan import Entry
from soc.beat.timing import Clocked, Crontab, Interval, Solar, Started, Timing

_PLACE = {name: place for place, name in enumerate(FIELDS, start=1)}
_MOST_RANGES = 32
"""More changed buckets than this are read with all the others."""


@dataclass(slots=True)
class Message:
    """What an entry publishes; the JSON texts are as they stand in the row, and sound."""

    name: str
    task: str
    args: str
    kwargs: str
    queue: str | None
    exchange: str | None
    routing_key: str | None
    headers: str
    priority: int | None
    expires: int | None
    expire_seconds: int | None
    template: Any = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Broken:
    """A row that no schedule can be made of."""

    key: int
    name: str
    reason: str


@dataclass
class Changes:
    """What to do to the given entries."""

    entries: list[Entry]
    removed: list[int]
    broken: list[Broken]
    mended: list[int]


class Reader:
    """Makes entries of rows; what many rows have in common is made once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._timings: dict[tuple[Any, ...], Timing] = {}
        self._texts: dict[str, str] = {}

    def all(self) -> Changes:
        """Read every enabled row."""
        return self._changes(self._database.rows(), known={})

    def changed(self, known: dict[int, Entry]) -> Changes:
        """Read the rows that differ from the known entries, with their neighbours."""
        buckets = self._different_buckets(known)
        if not buckets:
            return Changes([], [], [], [])
        if len(buckets) > _MOST_RANGES:
            return self._changes(self._database.rows(), known)
        near = {key: entry for key, entry in known.items() if key // BUCKET in buckets}
        return self._changes(self._database.rows(sorted(buckets)), near)

    def _different_buckets(self, known: dict[int, Entry]) -> set[int]:
        ours: dict[int, tuple[int, int]] = {}
        for key, entry in known.items():
            number, total = ours.get(key // BUCKET, (0, 0))
            ours[key // BUCKET] = (number + 1, total + entry.fingerprint)
        theirs = self._database.digests()
        return {bucket for bucket, _ in ours.items() ^ theirs.items()}

    def _changes(self, rows: Iterable[tuple[Any, ...]], known: dict[int, Entry]) -> Changes:
        changes = Changes([], [], [], [])
        missing = set(known)
        for row in rows:
            key = row[1]
            missing.discard(key)
            old = known.get(key)
            if old is not None and old.fingerprint == row[0]:
                continue
            try:
                entry = self._entry(row)
            except Exception as error:
                # Whatever is wrong with a row, it must not cost the others.
                reason = str(error) or type(error).__name__
                changes.broken.append(Broken(key, row[_PLACE["name"]], reason))
                continue
            changes.entries.append(entry)
            if row[_PLACE["problem"]]:
                changes.mended.append(key)
        broken = {row.key for row in changes.broken}
        changes.removed = [*missing, *(broken & known.keys())]
        return changes

    def _entry(self, row: tuple[Any, ...]) -> Entry:
        def value(name: str) -> Any:
            return row[_PLACE[name]]

        moment = self._database.moment
        last, created = moment(value("last_run_at")), moment(value("date_changed"))
        once = bool(value("one_off"))
        expires = moment(value("expires"))
        start = moment(value("start_time"))
        timing = self._timing(value, start, created if last is None else last)
        if isinstance(timing, Clocked):
            # However old its time is, it has not run: it would not be enabled.
            once, last, created = True, None, 0
        return Entry(
            key=row[1],
            timing=timing,
            created=created,
            last=last,
            once=once,
            until=expires,
            catch_up=value("missed") == TaskOptions.Missed.ONCE,
            early=value("delivery") != TaskOptions.Delivery.AT_LEAST_ONCE,
            fingerprint=row[0],
            finished=once and value("total_run_count") > 0,
            message=Message(
                name=value("name"),
                task=self._shared(value("task")),
                args=self._shared(_sound(value("args"), list, "positional arguments")),
                kwargs=self._shared(_sound(value("kwargs"), dict, "keyword arguments")),
                queue=self._given(value("queue")),
                exchange=self._given(value("exchange")),
                routing_key=self._given(value("routing_key")),
                headers=self._shared(_sound(value("headers"), dict, "headers")),
                priority=value("priority"),
                expires=expires,
                expire_seconds=value("expire_seconds"),
            ),
        )

    def _shared(self, text: str) -> str:
        return text if len(text) > 100 else self._texts.setdefault(text, text)

    def _given(self, text: str | None) -> str | None:
        return self._shared(text) if text else None

    def _timing(self, value: Callable[[str], Any], start: int | None, anchor: int) -> Timing:
        if value("interval_id") is not None:
            every = timedelta(**{value("period"): value("every")}) // timedelta(microseconds=1)
            if every < 1:
                raise ValueError("the interval is not positive")
            if start is None:
                return Interval(every, anchor)
            return Started(Interval(every, start), start)
        if value("clocked_id") is not None:
            when = self._database.moment(value("clocked_time"))
            return Clocked(max(when, start or 0))
        if value("crontab_id") is not None:
            fields = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year", "timezone")
            timing = self._shared_timing(_crontab, *(value(field) for field in fields))
        elif value("solar_id") is not None:
            timing = self._shared_timing(
                _solar, value("event"), value("latitude"), value("longitude")
            )
        else:
            raise ValueError("it has no schedule: no interval, crontab, solar event or time")
        return timing if start is None else Started(timing, start)

    def _shared_timing(self, make: Callable[..., Timing], *arguments: Any) -> Timing:
        key = (make, *arguments)
        if key not in self._timings:
            self._timings[key] = make(*arguments)
        return self._timings[key]


def _crontab(minute: str, hour: str, weekday: str, day: str, month: str, zone: str) -> Crontab:
    # Celery allows blanks in a field no more than cron does; django-celery-beat's form does.
    minute, hour, weekday, day, month = (
        field.replace(" ", "") for field in (minute, hour, weekday, day, month)
    )
    return Crontab(minute, hour, weekday, day, month, _zone(zone))


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError) as error:
        raise ValueError(f"there is no time zone {name!r}") from error


def _solar(event: str, latitude: Decimal, longitude: Decimal) -> Solar:
    place = float(latitude), float(longitude)

    def following(at: datetime) -> datetime:
        left: timedelta = schedules.solar(event, *place, nowfun=lambda: at).remaining_estimate(at)
        return at + left

    following(datetime.now(tz=ZoneInfo("UTC")))
    return Solar(following)


def _sound(text: str | None, kind: type, what: str) -> str:
    """Return a JSON text that holds a value of a kind.

    Raises:
        ValueError: it does not.
    """
    empty = "[]" if kind is list else "{}"
    if not text or text == empty:
        return empty
    try:
        parsed = json.loads(text)
    except ValueError as error:
        raise ValueError(f"the {what} are not JSON: {error}") from error
    if not isinstance(parsed, kind):
        raise ValueError(f"the {what} are not a JSON {'list' if kind is list else 'object'}")
    return text
