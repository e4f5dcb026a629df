"""What operators see of directory servers, read in a fixed number of queries."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.core.paginator import Page, Paginator
from django.db.models import Case, Count, Q, QuerySet, Value, When

from soc.common.listing import PAGE, QueryFilter, Tab
from soc.ldap_probe import pictures
from soc.ldap_probe.diagnostics import ANSWERED, Phase
from soc.ldap_probe.models import DirectoryServer, ProbeResult, State

MOST_RESULTS = 30
MOST_COMPARED = 100
COMPARED_FOR = timedelta(hours=6)
SPANS = {
    "3": timedelta(hours=3),
    "24": timedelta(days=1),
    "168": timedelta(days=7),
    "336": timedelta(days=14),
}
"""The histories that are offered, by their hours."""

TONES = {
    State.DOWN: "bad",
    State.TIMEOUT: "bad",
    State.CERTIFICATE: "bad",
    State.CREDENTIAL: "bad",
    State.SECURITY: "bad",
    State.REFUSED: "bad",
    State.REFERRAL: "warn",
    State.SLOW: "warn",
    State.UNKNOWN: "idle",
    State.OK: "ok",
}
"""How each state looks, the worst first: this is also the order of the list."""

TIMES = tuple(f"{phase.value}_ms" for phase in Phase)


@dataclass(frozen=True)
class DirectoryFilter(QueryFilter):
    """What a person asks to see, as it stands in the address; an unknown value matches nothing."""

    site: str = ""
    group: str = ""
    state: str = ""
    credential: str = ""
    q: str = ""

    def of_any_state(self) -> QuerySet[DirectoryServer]:
        """Return the watched servers that match but for their states, in no order."""
        servers = DirectoryServer.objects.filter(enabled=True).order_by()
        if self.site:
            servers = servers.filter(site=self.site)
        if self.group:
            servers = servers.filter(group=self.group)
        if self.credential:
            known = self.credential.isdecimal() and len(self.credential) < 19
            servers = servers.filter(credential=int(self.credential)) if known else servers.none()
        for word in self.q.split():
            named = Q(host__icontains=word) | Q(site__icontains=word) | Q(group__icontains=word)
            servers = servers.filter(named | Q(detail__icontains=word) | Q(notes__icontains=word))
        return servers


@dataclass(frozen=True)
class DirectoryRow:
    """One server as a list shows it."""

    server: DirectoryServer

    @property
    def tone(self) -> str:
        """How its state looks."""
        return TONES[State(self.server.state)]

    @property
    def last(self) -> float | None:
        """The milliseconds of the last probe, if it was answered."""
        return self.server.recent[-1] if self.server.recent else None

    @property
    def spark(self) -> pictures.Spark:
        """The picture of its last probes."""
        return pictures.spark(self.server.recent)


@dataclass(frozen=True)
class DirectoryListing:
    """One page of a filtered list, with what else could be chosen."""

    now: datetime
    filter: DirectoryFilter
    page: Page
    rows: Sequence[DirectoryRow]
    counts: Mapping[str, int]
    sites: Sequence[str]
    groups: Sequence[str]

    @property
    def total(self) -> int:
        """How many servers match."""
        return self.page.paginator.count

    @property
    def failing(self) -> int:
        """How many of all states but these two match."""
        well = self.counts.get(State.OK, 0) + self.counts.get(State.UNKNOWN, 0)
        return sum(self.counts.values()) - well

    @property
    def tabs(self) -> list[Tab]:
        """The states that occur, the worst first, with their counts."""
        chosen = self.filter.state
        every = Tab(
            "All", "none", sum(self.counts.values()), self.filter.but(state="").query, not chosen
        )
        return [every] + [
            Tab(
                str(state.label),
                tone,
                self.counts.get(state, 0),
                self.filter.but(state=state.value).query,
                chosen == state,
            )
            for state, tone in TONES.items()
            if self.counts.get(state) or chosen == state
        ]


def read_page(query: DirectoryFilter, number: str, now: datetime) -> DirectoryListing:
    """Read one page of the list; a number beyond the last page is the last page."""
    matching = query.of_any_state()
    counts = {row["state"]: row["n"] for row in matching.values("state").annotate(n=Count("pk"))}
    if query.state:
        matching = matching.filter(state=query.state)
    rank = Case(*(When(state=state, then=Value(n)) for n, state in enumerate(TONES)))
    needed = matching.select_related("credential", "profile").only(
        *("host", "port", "security", "site", "group", "state", "state_since", "detail"),
        *("probed_at", "recent", "lag", "unjudged", "credential__name", "profile__name"),
    )
    page = Paginator(needed.order_by(rank, "site", "host", "port"), PAGE).get_page(number)
    places = DirectoryServer.objects.filter(enabled=True).order_by("site", "group")
    known = list(places.values_list("site", "group").distinct())
    return DirectoryListing(
        now=now,
        filter=query,
        page=page,
        rows=[DirectoryRow(server) for server in page.object_list],
        counts=counts,
        sites=sorted({site for site, _ in known if site}),
        groups=sorted({group for _, group in known if group}),
    )


# --- One server ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class ProbeRow:
    """One probe as a table shows it."""

    result: ProbeResult

    @property
    def tone(self) -> str:
        """How its outcome looks."""
        if self.result.outcome == State.OK and self.result.severity:
            return TONES[State.SLOW]
        return TONES[State(self.result.outcome)]

    @property
    def times(self) -> list[float | None]:
        """The milliseconds of the phases."""
        return [getattr(self.result, name) for name in TIMES]


@dataclass(frozen=True)
class DirectoryDetail:
    """One server with its history."""

    row: DirectoryRow
    history: pictures.History
    hours: Sequence[datetime]
    results: Sequence[ProbeRow]
    errors: Sequence[tuple[str, int]]
    beside: int
    span: str


def read_detail(server: DirectoryServer, span: str, now: datetime) -> DirectoryDetail:
    """Read a server's history over one of the offered spans."""
    span = span if span in SPANS else "24"
    since = now - SPANS[span]
    results = ProbeResult.objects.filter(server=server, at__gt=since, at__lte=now)
    points = list(results.order_by("at").values_list("at", "outcome", "error", *TIMES))
    probes = ((at, outcome, _times(spent)) for at, outcome, _, *spent in points)
    errors = Counter(error for _, _, error, *_ in points if error)
    latest = ProbeResult.objects.filter(server=server).order_by("-at")[:MOST_RESULTS]
    beside = DirectoryServer.objects.filter(enabled=True, site=server.site).exclude(pk=server.pk)
    return DirectoryDetail(
        row=DirectoryRow(server),
        history=pictures.history(probes, since, now),
        hours=pictures.hours(since, now),
        results=[ProbeRow(result) for result in latest],
        errors=errors.most_common(10),
        beside=beside.count() if server.site else 0,
        span=span,
    )


def _times(spent: Iterable[float | None]) -> pictures.Times:
    return dict(zip(Phase, spent, strict=True))


# --- The servers of a site ----------------------------------------------------------------------


@dataclass(frozen=True)
class Compared:
    """One server beside the others of its site; the milliseconds are medians."""

    row: DirectoryRow
    parts: Sequence[pictures.Part]
    total: float | None
    probes: int
    answered: int

    @property
    def times(self) -> list[float | None]:
        """The phases' medians, None for a phase that it does not have."""
        found = {part.phase: part.usual for part in self.parts}
        return [found.get(phase) for phase in Phase]

    @property
    def percent(self) -> float | None:
        """How many of the probes it answered, in percent."""
        return 100 * self.answered / self.probes if self.probes else None


def compare(site: str, now: datetime) -> list[Compared]:
    """Compare the servers of a site over the last hours, the slowest first; in two queries."""
    watched = DirectoryServer.objects.filter(enabled=True, site=site)
    servers = list(watched.order_by("host", "port")[:MOST_COMPARED])
    results = ProbeResult.objects.filter(
        server__in=[server.pk for server in servers], at__gt=now - COMPARED_FOR
    )
    outcomes: dict[int, list[str]] = defaultdict(list)
    timed: dict[int, list[pictures.Times]] = defaultdict(list)
    for key, outcome, *spent in results.order_by().values_list("server", "outcome", *TIMES):
        outcomes[key].append(outcome)
        if outcome == State.OK:
            timed[key].append(_times(spent))
    usual = {key: pictures.usual(probes) for key, probes in timed.items()}
    slowest = max((sum(times.values()) for times in usual.values()), default=0)
    rows = [
        Compared(
            row=DirectoryRow(server),
            parts=pictures.parts(usual.get(server.pk, {}), slowest),
            total=sum(usual[server.pk].values()) if server.pk in usual else None,
            probes=len(outcomes[server.pk]),
            answered=sum(outcome in ANSWERED for outcome in outcomes[server.pk]),
        )
        for server in servers
    ]
    # What has no time at all is the worst there is.
    return sorted(rows, key=lambda row: -(row.total if row.total is not None else 1e12))
