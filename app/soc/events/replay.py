"""Feeds recorded events to the rules by the recording's own time: what would have been alerted.

It runs in a process of its own on an empty database (soc.events.dry_run), to which rules, robots
and settings are copied. Nobody is subscribed there, so nothing is mailed; silences,
acknowledgements and what was before the recording are unknown to it.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.apps import apps
from django.core import serializers
from django.utils import timezone
from django.utils.module_loading import import_string

from soc.alerts.models import AlertEvent
from soc.core.severity import Severity
from soc.events import dead, shapes
from soc.events.bodies import Malformed
from soc.events.ingest import Ingest, IngestCounts
from soc.events.mappings import Mappings
from soc.events.models import Event, StreamSettings
from soc.events.shapes import Part

MINUTE = timedelta(minutes=1)
LONGEST = timedelta(days=8)
"""Of a recording: one minute of it costs as much as one of the site."""

COPIED = (
    *("events.Site", "events.Bot", "events.BotAlias", "events.EventSource"),
    *("events.FieldMapping", "events.StreamSettings", "mail_collector.MailSettings"),
    *("logons.LogonSettings", "alerts.Rule"),
)
"""What rules go by, in the order of their references."""

REPORTS = ("soc.mail_collector.conditions.report", "soc.logons.conditions.report")
"""What reports of the stream's events by the clock."""

SHOWN = ("fired", "worse", "better", "flapping", "steady", "suppressed", "resolved")


class ReplayProblem(Exception):
    """A recording cannot be replayed; the text says why, to a person."""


@dataclass(frozen=True)
class Recorded:
    """A recorded message: when it came, and the events that it holds."""

    at: datetime
    parts: list[Part]


def recorded(lines: Iterable[str]) -> Iterator[Recorded]:
    """Yield the messages of a recording, which has one a line.

    A line of `events record` has the time at which the message came; of any other, which is the
    message itself, the time of its first event counts.
    """
    last: datetime | None = None
    for line in filter(str.strip, lines):
        at, text = _unwrapped(line)
        parts = shapes.read_all(text)
        times = (part.event.at for part in parts if not isinstance(part.event, Malformed))
        if at := at or next(times, last):
            last = at
            yield Recorded(at, parts)


def _unwrapped(line: str) -> tuple[datetime | None, str]:
    try:
        document = json.loads(line)
    except ValueError:
        return None, line
    if isinstance(document, dict) and set(document) == {"received_at", "message"}:
        return datetime.fromisoformat(document["received_at"]), document["message"]
    return None, line


def replay(
    messages: Iterable[Recorded], as_of: datetime | None, show: Callable[[str], None]
) -> None:
    """Feed messages by their times until ``as_of``, and show what the rules make of them.

    Raises:
        ReplayProblem: there are none, or they span too long a time.
    """
    came = sorted(messages, key=lambda message: message.at)
    if not came:
        raise ReplayProblem("It holds no event whose time can be read.")
    now, end = came[0].at.replace(second=0, microsecond=0), as_of or came[-1].at
    if end < now:
        raise ReplayProblem(f"Its first event is of {came[0].at}, after {end}.")
    if end - now > LONGEST:
        raise ReplayProblem(f"From {now} to {end} is more than {LONGEST.days} days.")
    clock = _Clock(now)
    timezone.now = clock
    player = _Player(clock, show)
    place = 0
    while now < end:
        now = min(now + MINUTE, end)
        begin = place
        while place < len(came) and came[place].at <= now:
            place += 1
        if place > begin:
            clock.at = came[place - 1].at
            player.take([part for message in came[begin:place] for part in message.parts])
        clock.at = now
        player.report()
    player.conclude(f"{len(came) - place} after {end:%Y-%m-%d %H:%M:%S}")


@dataclass
class _Clock:
    at: datetime

    def __call__(self) -> datetime:
        return self.at


class _Player:
    """Does what the workers of events and of their rules do, and shows the changes of alerts."""

    def __init__(self, clock: _Clock, show: Callable[[str], None]) -> None:
        self._clock = clock
        self._show = show
        self._ingest, self._mappings = Ingest("replay"), Mappings()
        self._counts = IngestCounts()
        self._shown: Counter[str] = Counter()
        self._last = 0
        self._take_new = import_string("soc.mail_collector.collect.take_new")
        self._reports = [import_string(name) for name in REPORTS]

    def take(self, parts: list[Part]) -> None:
        """Store events as the stream's worker does, and keep the refused as dead letters."""
        parts = self._mappings.applied(parts)
        taken = self._ingest.take([part.event for part in parts])
        self._counts.add(taken.counts)
        dead.keep([dead.of(parts[place].body, reason) for place, reason in taken.refusals])

    def report(self) -> None:
        """Report as every minute's schedules do."""
        self._take_new()
        for report in self._reports:
            report(self._clock.at)
        new = AlertEvent.objects.filter(pk__gt=self._last).order_by("pk")
        for event in new.select_related("alert__rule", "alert__subject"):
            self._last = event.pk
            if event.kind in SHOWN:
                self._shown[event.kind] += 1
                self._show(_line(event, self._clock.at))

    def conclude(self, rest: str) -> None:
        """Show what has come of it all."""
        counts = self._counts
        changes = ", ".join(f"{number} {kind}" for kind, number in self._shown.items())
        self._show(
            f"{counts.stored} events stored, {counts.refused} refused, {counts.dropped} dropped, "
            f"{rest}: {changes or 'no alert'}"
        )


def _line(event: AlertEvent, now: datetime) -> str:
    alert = event.alert
    summary = f": {alert.summary}" if alert.summary and event.kind != "resolved" else ""
    return (
        f"{now:%Y-%m-%d %H:%M}  {event.kind:<10} {Severity(event.severity).label:<8} "
        f"{alert.rule.application}/{alert.rule.name}  {alert.subject.name}{summary}"
    )


def copied() -> str:
    """Return the site's rules, robots and settings as JSON."""
    rows = [row for label in COPIED for row in apps.get_model(label).objects.order_by("pk")]
    return str(serializers.serialize("json", rows))


def load(rows: str) -> None:
    """Put what was copied into an empty database."""
    for label in reversed(COPIED):
        apps.get_model(label).objects.all().delete()
    for row in serializers.deserialize("json", rows):
        row.save()
    # What drops or quietens a backlog of now has no say about then.
    StreamSettings.objects.update(quiet_before=None, expired_before=None)


def record(since: datetime, until: datetime) -> Iterator[str]:
    """Yield the raw events that came in a time, a line each, as `recorded` reads them."""
    events = Event.objects.filter(received_at__gte=since, received_at__lt=until)
    for at, raw in events.order_by("pk").values_list("received_at", "raw").iterator():
        yield json.dumps({"received_at": at.isoformat(), "message": raw}, ensure_ascii=False)
