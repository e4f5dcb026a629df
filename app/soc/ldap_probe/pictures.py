"""Pictures of probes as SVG: a server's last ones, its history by phases, servers side by side."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median

from soc.common.charts import Bars, bars, segments
from soc.ldap_probe.diagnostics import ANSWERED, Phase

PHASES = tuple(Phase)
LABELS = {phase: phase.value.capitalize() for phase in PHASES} | {Phase.TLS: "TLS"}

MOST_COLUMNS, LEAST_COLUMNS = 240, 36
COLUMN = timedelta(minutes=5)
"""The time of a column of a history, or more; each shows the mean of the probes in its time."""

WIDTH, HEIGHT = 1440, 200

SPARK_WIDTH, SPARK_HEIGHT = 144, 28
SPARK_BAR = 4
LEAST_SCALE = 10.0
"""Milliseconds that fill a picture at least: what is fast must not look rugged."""

Times = Mapping[Phase, float | None]


@dataclass(frozen=True)
class Spark(Bars):
    """The last probes of a server, in milliseconds."""

    @property
    def in_words(self) -> str:
        """The picture as a sentence."""
        if not self.count:
            return "not probed yet"
        missed = f", {self.failed} not answered" if self.failed else ""
        return f"the last {self.count} probes: at most {self.highest:.0f} ms{missed}"


def spark(recent: Sequence[float | None]) -> Spark:
    """Return the picture of the last probes, in milliseconds, None for one without an answer."""
    size = {"width": SPARK_WIDTH, "height": SPARK_HEIGHT, "bar": SPARK_BAR}
    return Spark(**vars(bars(recent, **size, least=LEAST_SCALE)))


@dataclass(frozen=True)
class Band:
    """One phase in a picture: the SVG path of its areas, and its usual and highest times in ms."""

    phase: Phase
    path: str
    usual: float
    highest: float

    @property
    def label(self) -> str:
        """The phase's name."""
        return LABELS[self.phase]


@dataclass(frozen=True)
class History:
    """The probes of one server in a span of time: phases upon each other, and each by itself."""

    bands: Sequence[Band]
    single: Sequence[Band]
    failures: str
    top: float
    probes: int
    answered: int

    @property
    def missed(self) -> int:
        """How many of the probes were not answered."""
        return self.probes - self.answered

    @property
    def percent(self) -> float:
        """How many of the probes were answered, in percent."""
        return 100 * self.answered / self.probes if self.probes else 0.0

    @property
    def in_words(self) -> str:
        """The picture as a sentence."""
        usual = ", ".join(f"{band.label} {band.usual:.1f} ms" for band in self.bands)
        return f"{self.answered} of {self.probes} probes answered; usual times: {usual or 'none'}"


@dataclass
class _Column:
    times: list[Times]
    failures: int = 0

    def mean(self, phase: Phase) -> float:
        spent = [times[phase] or 0 for times in self.times]
        return sum(spent) / len(spent)


Probe = tuple[datetime, str, Times]
"""When, with which outcome, and the milliseconds of its phases."""


def history(probes: Iterable[Probe], since: datetime, until: datetime) -> History:
    """Return the picture of probes between two moments."""
    columns: dict[int, _Column] = {}
    most = min(MOST_COLUMNS, max(LEAST_COLUMNS, (until - since) // COLUMN))
    width = (until - since) / most
    count = answered = 0
    every: dict[Phase, list[float]] = {phase: [] for phase in PHASES}
    for at, outcome, times in probes:
        position = min(most - 1, max(0, (at - since) // width))
        column = columns.setdefault(position, _Column([]))
        count += 1
        if outcome not in ANSWERED:
            column.failures += 1
            continue
        answered += 1
        column.times.append(times)
        for phase in PHASES:
            if (spent := times[phase]) is not None:
                every[phase].append(spent)
    draw = _Drawing(WIDTH / most)
    timed = {position: column for position, column in columns.items() if column.times}
    seen = [phase for phase in PHASES if every[phase]]
    means = {
        position: {phase: column.mean(phase) for phase in seen}
        for position, column in timed.items()
    }
    top = max((sum(spent.values()) for spent in means.values()), default=0)
    usual = {phase: median(every[phase]) for phase in seen}
    highest = {phase: max(every[phase]) for phase in seen}
    return History(
        bands=[
            Band(phase, draw.stacked(means, seen[:n], phase, top), usual[phase], highest[phase])
            for n, phase in enumerate(seen)
        ],
        single=[
            Band(
                phase,
                draw.stacked(means, [], phase, max(spent[phase] for spent in means.values())),
                usual[phase],
                highest[phase],
            )
            for phase in seen
        ],
        failures=" ".join(
            draw.bar(position, HEIGHT, 24)
            for position, column in sorted(columns.items())
            if column.failures
        ),
        top=max(top, LEAST_SCALE),
        probes=count,
        answered=answered,
    )


@dataclass(frozen=True)
class _Drawing:
    """Bars side by side, each ``step`` wide with the gap to the next."""

    step: float

    def bar(self, position: int, ground: float, height: float) -> str:
        wide = f"{self.step * 0.9:g}"
        return f"M{position * self.step:g} {ground:.1f}v-{height:.1f}h{wide}v{height:.1f}z"

    def stacked(
        self,
        means: Mapping[int, Mapping[Phase, float]],
        below: Sequence[Phase],
        phase: Phase,
        top: float,
    ) -> str:
        scale = HEIGHT / max(top, LEAST_SCALE)
        return " ".join(
            self.bar(
                position,
                HEIGHT - scale * sum(spent[other] for other in below),
                max(0.8, scale * spent[phase]),
            )
            for position, spent in sorted(means.items())
        )


@dataclass(frozen=True)
class Part:
    """One phase of a server beside others: its place in the bar, and its usual time in ms."""

    phase: Phase
    x: float
    width: float
    usual: float

    @property
    def label(self) -> str:
        """The phase's name."""
        return LABELS[self.phase]


def usual(probes: Sequence[Times]) -> dict[Phase, float]:
    """Return the medians of the phases over some probes, in ms."""
    return {
        phase: median(spent)
        for phase in PHASES
        if (spent := [took for times in probes if (took := times[phase]) is not None])
    }


def parts(times: Mapping[Phase, float], slowest: float) -> list[Part]:
    """Return the parts of a server's bar; a server of ``slowest`` ms fills 1000 units."""
    drawn = segments(times.items(), max(slowest, LEAST_SCALE))
    return [Part(part.value, part.x, part.width, part.length) for part in drawn]


def hours(since: datetime, until: datetime) -> list[datetime]:
    """Return five moments, evenly spread, for the axis below a picture."""
    step: timedelta = (until - since) / 4
    return [since + step * n for n in range(5)]
