"""What operators see of the mail routes, read in a fixed number of queries."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import F, Window
from django.db.models.functions import RowNumber

from soc.common.charts import Bars, Segment, bars, segments
from soc.mail_routes.ends import RoutePhase
from soc.mail_routes.models import MailRoute, RoundTrip

MOST_LISTED = 36
MOST_SHOWN = 144
SPARK = {"width": 144, "height": 28, "bar": 4}
HISTORY = {"width": 1440, "height": 200, "bar": 10}
LEAST_SECONDS = 10.0
"""What fills a picture at least: what is fast must not look rugged."""

Outcome = RoundTrip.Outcome

TONES: Mapping[str, str] = {
    Outcome.ON_TIME: "ok",
    Outcome.LATE: "warn",
    Outcome.SPAM: "warn",
    Outcome.ABANDONED: "idle",
    "": "idle",
}
"""How outcomes look; all others are bad."""

PHASES = {
    RoutePhase.CONNECT: "Connect",
    RoutePhase.TLS: "TLS",
    RoutePhase.LOGIN: "Login",
    RoutePhase.SUBMIT: "Submit",
}


@dataclass(frozen=True)
class TripRow:
    """One round trip as a table shows it."""

    trip: RoundTrip

    @property
    def tone(self) -> str:
        """How it looks."""
        if self.trip.state != RoundTrip.State.DONE:
            return "warn" if self.trip.detail else "idle"
        return TONES.get(self.trip.outcome, "bad")

    @property
    def label(self) -> str:
        """How it is in a word or two."""
        if self.trip.state == RoundTrip.State.DONE:
            return self.trip.get_outcome_display()
        return self.trip.get_state_display()

    @property
    def seconds(self) -> float | None:
        """The seconds from the submission to the mailbox, of a mail that has arrived."""
        return None if self.trip.delivery is None else self.trip.delivery.total_seconds()

    @property
    def times(self) -> list[float | None]:
        """The milliseconds of the phases."""
        return [getattr(self.trip, f"{phase}_ms") for phase in PHASES]


@dataclass(frozen=True)
class RouteRow:
    """One route as the list shows it; its trips, the newest first."""

    route: MailRoute
    trips: Sequence[TripRow]

    @property
    def done(self) -> TripRow | None:
        """The last trip that has ended."""
        ended = (row for row in self.trips if row.trip.state == RoundTrip.State.DONE)
        return next(ended, None)

    @property
    def current(self) -> TripRow | None:
        """What says how the route is: a trip with a problem before the last that has ended."""
        newest = self.trips[0] if self.trips else None
        return newest if newest is not None and newest.tone == "warn" else self.done

    @property
    def tone(self) -> str:
        """How it looks."""
        if not self.route.enabled or self.current is None:
            return "idle"
        return self.current.tone

    @property
    def label(self) -> str:
        """How it is in a word or two."""
        if not self.route.enabled:
            return "disabled"
        return self.current.label if self.current else "not checked yet"

    @property
    def detail(self) -> str:
        """What is wrong with it."""
        return self.current.trip.detail if self.current else ""

    @property
    def spark(self) -> Bars:
        """The picture of its last round trips."""
        return bars(self._seconds(MOST_LISTED), **SPARK, least=LEAST_SECONDS)

    @property
    def history(self) -> Bars:
        """The large picture of its last round trips."""
        return bars(self._seconds(MOST_SHOWN), **HISTORY, least=LEAST_SECONDS)

    @property
    def in_words(self) -> str:
        """The pictures as a sentence."""
        drawn = self.history
        if not drawn.count:
            return "no round trip yet"
        missed = f", {drawn.failed} did not arrive" if drawn.failed else ""
        return f"the last {drawn.count} round trips: at most {drawn.highest:.0f} s{missed}"

    def _seconds(self, most: int) -> list[float | None]:
        ended = [row.seconds for row in self.trips if row.trip.state == RoundTrip.State.DONE]
        return ended[:most][::-1]


def read_list() -> list[RouteRow]:
    """Return the routes, the worst first."""
    rows = _rows(list(MailRoute.objects.all()), MOST_LISTED + 1)
    order = ("bad", "warn", "idle", "ok")
    return sorted(rows, key=lambda row: (order.index(row.tone), row.route.name))


def _rows(routes: Sequence[MailRoute], most: int) -> list[RouteRow]:
    newest = Window(RowNumber(), partition_by="route", order_by=F("started_at").desc())
    numbered = RoundTrip.objects.filter(route__in=routes).annotate(number=newest)
    trips: dict[int, list[TripRow]] = defaultdict(list)
    for trip in numbered.filter(number__lte=most).order_by("-started_at"):
        trips[trip.route_id].append(TripRow(trip))
    return [RouteRow(route, trips[route.pk]) for route in routes]


# --- One route ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Journey:
    """The way of one mail as two bars: the submission in milliseconds, the delivery in seconds."""

    trip: TripRow
    submission: Sequence[Segment[str]]
    submission_ms: float
    delivery: Sequence[Segment[str]]
    delivery_s: float


@dataclass(frozen=True)
class RouteDetail:
    """One route with its last round trips."""

    row: RouteRow
    journey: Journey | None
    now: datetime


def read_detail(route: MailRoute, now: datetime) -> RouteDetail:
    """Read a route's last round trips."""
    (row,) = _rows([route], MOST_SHOWN)
    arrived = next((trip for trip in row.trips if trip.seconds is not None), None)
    return RouteDetail(row, journey(arrived) if arrived else None, now)


def journey(row: TripRow) -> Journey:
    """Return the picture of a mail that has arrived."""
    spent = [(label, took or 0) for label, took in zip(PHASES.values(), row.times, strict=True)]
    total = sum(took for _, took in spent)
    # Servers' clocks differ: what one has noted before the one before it took no time.
    hops = [(str(hop["by"]), max(0.0, float(hop["seconds"]))) for hop in row.trip.hops]
    # Hops are whole seconds by clocks of their own: what is left belongs to the mailbox.
    left = max(0.0, (row.seconds or 0) - sum(took for _, took in hops))
    hops.append(("mailbox", left))
    way = sum(took for _, took in hops)
    return Journey(row, segments(spent, total), total, segments(hops, way), way)
