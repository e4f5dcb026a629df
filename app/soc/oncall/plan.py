"""Who is on call when: shifts by turns, hours, and overrides.

Times are those of the wall clock in the rota's zone, and become moments as all windows do
(``soc.common.times.moment``): a shift is an hour shorter or longer where the clocks change.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import count

from django.contrib.auth.models import User
from django.db.models import Prefetch

from soc.common.times import moment
from soc.oncall.models import WEEKDAYS, Rota, RotaMember, ShiftOverride
from soc.provision.environment import split

HORIZON = timedelta(days=60)
"""How far ahead a change of the person is looked for."""

DAY = timedelta(days=1)

OUT_OF_HOURS = "out of hours"
NOT_STARTED = "not started yet"
NOBODY = "it has no members"


@dataclass(frozen=True)
class OnCall:
    """A time in which one person is on call, or nobody and why."""

    start: datetime
    end: datetime
    person: User | None = None
    why: str = ""
    """Why nobody is; or the note of an override."""
    override: bool = False

    @property
    def is_gap(self) -> bool:
        """Whether somebody ought to be on call, and nobody is."""
        return self.person is None and self.why not in (OUT_OF_HOURS, NOT_STARTED)

    @property
    def name(self) -> str:
        """The person's name as pages show it, or ``Nobody``."""
        return name_of(self.person) if self.person else "Nobody"

    def within(self, start: datetime, end: datetime) -> "OnCall":
        """Return the part of it between two moments."""
        return replace(self, start=max(self.start, start), end=min(self.end, end))


@dataclass(frozen=True)
class Plan:
    """A rota with its people and overrides, as they were read once."""

    rota: Rota
    people: Sequence[User]
    overrides: Sequence[ShiftOverride]
    """The older ones first: a newer one holds where two overlap."""

    def at(self, now: datetime) -> OnCall:
        """Return who is on call at a moment, from when until when as far as `HORIZON`."""
        return next(span for span in self.spans(now - HORIZON, now + HORIZON) if span.end > now)

    def following(self, now: datetime) -> OnCall | None:
        """Return who is on call after the one at a moment, if anybody is within `HORIZON`."""
        after = (s for s in self.spans(now, now + HORIZON) if s.start > now and s.person)
        return next(after, None)

    def gaps(self, since: datetime, until: datetime) -> list[OnCall]:
        """Return the times between two moments in which nobody is on call who ought to be."""
        return [span for span in self.spans(since, until) if span.is_gap]

    def handovers(self, since: datetime, until: datetime) -> list[datetime]:
        """Return the moments after one, up to another, at which somebody's shift begins."""
        # One that begins at the end is no part of what is before it.
        spans = self.spans(since, until + timedelta(seconds=1))
        return [span.start for span in spans if span.person and since < span.start <= until]

    def spans(self, since: datetime, until: datetime) -> list[OnCall]:
        """Return who is on call between two moments, without a hole and in order."""
        spans = list(self._turns(since, until))
        for override in self.overrides:
            if override.starts_at < until and override.ends_at > since:
                spans = _laid_over(spans, self._of(override).within(since, until))
        return _joined(spans)

    def _of(self, override: ShiftOverride) -> OnCall:
        person, why = _reachable(override.person)
        note = why or override.note
        return OnCall(override.starts_at, override.ends_at, person, note, override=True)

    def _turns(self, since: datetime, until: datetime) -> Iterator[OnCall]:
        begin = self._shift_start(0)
        if since < begin:
            yield OnCall(since, min(begin, until), why=NOT_STARTED)
        number = max(0, self._number(since))
        while (start := self._shift_start(number)) < until:
            shift = self._shift(number, start, self._shift_start(number + 1))
            if shift.end > since:
                yield from self._in_hours(shift.within(since, until))
            number += 1

    def _number(self, at: datetime) -> int:
        """Return the number of a shift that begins before a moment, or of the one before that."""
        days = (at.astimezone(self.rota.zone).date() - self.rota.starts_on).days
        return days // self.rota.shift_days - 1

    def _shift_start(self, number: int) -> datetime:
        day = self.rota.starts_on + number * self.rota.shift_days * DAY
        return self._moment(day, self.rota.handover_at)

    def _shift(self, number: int, start: datetime, end: datetime) -> OnCall:
        if not self.people:
            return OnCall(start, end, why=NOBODY)
        person, why = _reachable(self.people[number % len(self.people)])
        return OnCall(start, end, person, why)

    def _in_hours(self, shift: OnCall) -> Iterator[OnCall]:
        """Yield a shift's parts: those in the rota's hours, and nobody between them."""
        at = shift.start
        for start, end in self._hours(shift.start):
            if start >= shift.end:
                break
            if end <= at:
                continue
            if start > at:
                yield OnCall(at, start, why=OUT_OF_HOURS)
            yield shift.within(max(at, start), end)
            at = min(end, shift.end)
        if at < shift.end:
            yield OnCall(at, shift.end, why=OUT_OF_HOURS)

    def _hours(self, since: datetime) -> Iterator[tuple[datetime, datetime]]:
        """Yield the times in which somebody is on call at all, from about a moment on."""
        rota = self.rota
        first = since.astimezone(rota.zone).date() - DAY
        weekdays = {WEEKDAYS.index(day) for day in split(rota.weekdays)} or set(range(7))
        begin, end = rota.hours_from or time(0), rota.hours_until or time(0)
        over_midnight = end <= begin
        for number in count():
            day = first + number * DAY
            if day.weekday() in weekdays:
                yield self._moment(day, begin), self._moment(day + over_midnight * DAY, end)

    def _moment(self, day: date, at: time) -> datetime:
        return moment(datetime.combine(day, at), self.rota.zone)


def read(now: datetime, rotas: Iterable[int] | None = None) -> list[Plan]:
    """Return the plans of rotas, or of all, with what overrides them from 90 days ago on.

    Three statements, whatever the number of rotas.
    """
    members = RotaMember.objects.select_related("person")
    overrides = ShiftOverride.objects.select_related("person").order_by("pk")
    found = Rota.objects.prefetch_related(
        Prefetch("members", members),
        Prefetch("overrides", overrides.filter(ends_at__gt=now - timedelta(days=90))),
    )
    if rotas is not None:
        found = found.filter(pk__in=list(rotas))
    return [
        Plan(rota, [member.person for member in rota.members.all()], list(rota.overrides.all()))
        for rota in found
    ]


def name_of(person: User) -> str:
    """Return a person's name as pages show it."""
    return person.get_full_name() or person.get_username()


def _reachable(person: User) -> tuple[User | None, str]:
    """Return a person, or nobody and why."""
    if not person.is_active:
        return None, f"{name_of(person)} is disabled"
    if not person.email:
        return None, f"{name_of(person)} has no mail address"
    return person, ""


def _laid_over(spans: Iterable[OnCall], above: OnCall) -> list[OnCall]:
    """Return times with another in the place of what it covers."""
    parts: list[OnCall] = []
    for span in spans:
        if span.end <= above.start or span.start >= above.end:
            parts.append(span)
            continue
        parts.append(replace(span, end=max(span.start, above.start)))
        parts.append(replace(span, start=min(span.end, above.end)))
    parts.append(above)
    return sorted((p for p in parts if p.start < p.end), key=lambda part: part.start)


def _joined(spans: Iterable[OnCall]) -> list[OnCall]:
    """Return times in which neighbours that say the same are one; all in UTC."""
    joined: list[OnCall] = []
    for span in spans:
        last = joined[-1] if joined else None
        if last and replace(last, end=span.end) == replace(span, start=last.start):
            joined[-1] = replace(last, end=span.end)
        else:
            joined.append(span)
    return [
        replace(span, start=span.start.astimezone(UTC), end=span.end.astimezone(UTC))
        for span in joined
    ]
