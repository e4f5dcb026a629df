"""What the pages and the API show of rotas: who is on call, who follows, and four weeks ahead."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.utils import timezone

from soc.oncall.models import Rota
from soc.oncall.plan import OnCall, Plan, name_of, read

SHOWN = timedelta(days=28)
MOST_SHIFTS = 40
MOST_GAPS = 10

WIDTH = 1120
LANE = 26
"""Height of a person's line in the picture."""

TONES = 6
"""Looks of persons in the picture; their names stand next to their lines all the same."""


@dataclass(frozen=True)
class Bar:
    """A time of a line of the picture, in its units."""

    x: float
    width: float
    tone: str
    text: str


@dataclass(frozen=True)
class Lane:
    """One person's line of the picture, or that of the gaps."""

    name: str
    top: int
    bars: Sequence[Bar]


@dataclass(frozen=True)
class RotaView:
    """A rota as the page shows it."""

    plan: Plan
    now: datetime
    current: OnCall
    following: OnCall | None
    spans: Sequence[OnCall]

    @property
    def rota(self) -> Rota:
        """The rota."""
        return self.plan.rota

    @property
    def who(self) -> str:
        """Who is on call, or why nobody is."""
        return self.current.name

    @property
    def tone(self) -> str:
        """How it looks."""
        if self.current.is_gap:
            return "bad"
        if self.gaps:
            return "warn"
        return "ok" if self.current.person else "idle"

    @property
    def shifts(self) -> list[OnCall]:
        """The times in which somebody is on call or ought to be, the soonest first."""
        return [s for s in self.spans if s.end > self.now and (s.person or s.is_gap)][:MOST_SHIFTS]

    @property
    def gaps(self) -> list[OnCall]:
        """The times to come in which nobody is on call who ought to be."""
        return [span for span in self.spans if span.is_gap and span.end > self.now][:MOST_GAPS]

    @property
    def lanes(self) -> list[Lane]:
        """The picture's lines: one for each person in the order of their first shift, then gaps."""
        names = dict.fromkeys(name_of(span.person) for span in self.spans if span.person)
        lines = [(name, f"person-{number % TONES}") for number, name in enumerate(names)]
        found = [
            Lane(name, LANE * number, [self._bar(s, tone) for s in self.spans if self._is(s, name)])
            for number, (name, tone) in enumerate(lines)
        ]
        if any(span.is_gap for span in self.spans):
            gaps = [self._bar(span, "gap") for span in self.spans if span.is_gap]
            found.append(Lane("Nobody", LANE * len(found), gaps))
        return found

    @property
    def height(self) -> int:
        """The height of the picture."""
        return max(1, len(self.lanes)) * LANE

    @property
    def days(self) -> list[tuple[float, datetime]]:
        """The midnights of the site within the picture, each with its place."""
        local = timezone.localtime(self.spans[0].start)
        first = local.replace(hour=0, minute=0, second=0, microsecond=0)
        found = [(first + timedelta(days=n)) for n in range(1, SHOWN.days + 1)]
        return [(self._x(day), day) for day in found if 0 <= self._x(day) < WIDTH]

    @property
    def in_words(self) -> str:
        """The picture as a sentence."""
        return "; ".join(f"{shift.name} until {_brief(shift.end)}" for shift in self.shifts[:8])

    @staticmethod
    def _is(span: OnCall, name: str) -> bool:
        return span.person is not None and name_of(span.person) == name

    def _x(self, at: datetime) -> float:
        start, end = self.spans[0].start, self.spans[-1].end
        return round(WIDTH * ((at.astimezone(UTC) - start) / (end - start)), 1)

    def _bar(self, span: OnCall, tone: str) -> Bar:
        x, right = self._x(span.start), self._x(span.end)
        instead = ", override" if span.override else ""
        look = f"{tone} override" if span.override and span.person else tone
        text = f"{_brief(span.start)} to {_brief(span.end)}{instead}"
        return Bar(x, max(1.0, round(right - x, 1)), look, text)


def _brief(at: datetime) -> str:
    return f"{timezone.localtime(at):%d %b %H:%M}"


def views(now: datetime) -> list[RotaView]:
    """Return every rota as the page shows it, in three statements."""
    return [view(plan, now) for plan in read(now)]


def view(plan: Plan, now: datetime) -> RotaView:
    """Return a rota as the page shows it, from the start of today on."""
    start = timezone.localtime(now).replace(hour=0, minute=0, second=0, microsecond=0)
    return RotaView(plan, now, plan.at(now), plan.following(now), plan.spans(start, start + SHOWN))
