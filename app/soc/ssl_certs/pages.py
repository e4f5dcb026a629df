"""What people see of endpoints: filtered lists, and one endpoint with its chain and history.

Everything is read in a fixed number of queries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from django.core.paginator import Page
from django.db.models import Case, Count, F, Q, QuerySet, Value, When
from django.db.models.functions import Left, TruncDate

from soc.common import listing
from soc.common.listing import Choice, CountedPages, QueryFilter, Tab
from soc.ssl_certs import picture, strips
from soc.ssl_certs.models import (
    Certificate,
    Change,
    Endpoint,
    Group,
    Observation,
    Search,
    Verification,
)
from soc.ssl_certs.strips import TONES
from soc.trust.models import Authority

Status = Endpoint.Status

SHOWN_TEXT = 160
LONGEST_BAR = 90
"""Days left that fill the bar of a certificate."""

MOST_CHANGES = 50
MOST_OBSERVATIONS = 20
MOST_VERIFICATIONS = 5
MOST_TWINS = 20
MOST_SEARCHES = 5
SHOWN_NAMES = 100

SYSTEM = "system"
"""The choice of endpoints that are verified against the system's store."""


# --- The list -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class EndpointRow:
    """One endpoint as a list shows it."""

    endpoint: Endpoint
    now: datetime
    strip: strips.StatusStrip | None = None

    @property
    def tone(self) -> str:
        """How its status looks."""
        return TONES[Status(self.endpoint.status)]

    @property
    def days(self) -> int | None:
        """The days until its certificate expires."""
        certificate = self.endpoint.certificate
        if certificate is None or certificate.not_after is None:
            return None
        return (certificate.not_after - self.now).days

    @property
    def bar(self) -> int:
        """The days left in percent of the longest bar."""
        return round(100 * min(max(self.days or 0, 0), LONGEST_BAR) / LONGEST_BAR)


@dataclass(frozen=True)
class EndpointFilter(QueryFilter):
    """What a person asks to see, as it stands in the address; an unknown value matches nothing."""

    status: str = ""
    group: str = ""
    authority: str = ""
    protocol: str = ""
    q: str = ""

    def of_any_status(self) -> QuerySet[Endpoint]:
        """Return the enabled endpoints that match but for the status, in no order."""
        endpoints = Endpoint.objects.filter(enabled=True).order_by()
        if self.group:
            endpoints = endpoints.filter(group__name=self.group)
        if self.authority == SYSTEM:
            endpoints = endpoints.filter(authority=None)
        elif self.authority:
            endpoints = endpoints.filter(authority__name=self.authority)
        if self.protocol:
            starttls = "" if self.protocol == "tls" else self.protocol
            endpoints = endpoints.filter(starttls=starttls)
        for word in self.q.split():
            named = Q(host__icontains=word) | Q(server_name__icontains=word)
            told = Q(notes__icontains=word) | Q(reason__icontains=word)
            presented = Q(certificate__subject__icontains=word)
            endpoints = endpoints.filter(
                named | told | presented | Q(certificate__issuer__icontains=word)
            )
        return endpoints

    def matching(self) -> QuerySet[Endpoint]:
        """Return the endpoints that match, in no order."""
        endpoints = self.of_any_status()
        return endpoints.filter(status=self.status) if self.status else endpoints


@dataclass(frozen=True)
class EndpointListing:
    """One page of a filtered list, with what else could be shown."""

    now: datetime
    filter: EndpointFilter
    page: Page[Endpoint]
    rows: Sequence[EndpointRow]
    counts: Mapping[str, int]
    picture: picture.Picture

    @property
    def total(self) -> int:
        """How many endpoints match."""
        return self.page.paginator.count

    @property
    def troubled(self) -> int:
        """How many of what matches but for the status are failing."""
        return sum(self.counts.get(status, 0) for status, tone in TONES.items() if tone == "bad")

    @property
    def tabs(self) -> list[Tab]:
        """The statuses with their counts, the worst first."""
        return tabs(self.filter, self.counts)


def tabs(query: EndpointFilter, counts: Mapping[str, int]) -> list[Tab]:
    """Return all statuses together and each of them, the worst first."""
    shown = [("", "All", "idle", sum(counts.values()))]
    shown += [(s.value, str(s.label), tone, counts.get(s.value, 0)) for s, tone in TONES.items()]
    return [
        Tab(label, tone, count, query.but(status=value).query, value == query.status)
        for value, label, tone, count in shown
    ]


def counts(query: EndpointFilter) -> dict[str, int]:
    """Return how many of the endpoints that match but for the status have each."""
    counted = query.of_any_status().values("status").annotate(n=Count("pk"))
    return {row["status"]: row["n"] for row in counted}


def worst(number: int, now: datetime) -> list[EndpointRow]:
    """Return the worst endpoints, without the pictures of their last days."""
    return [
        EndpointRow(endpoint, now) for endpoint in _ordered(EndpointFilter().matching())[:number]
    ]


def read_page(query: EndpointFilter, number: str, now: datetime) -> EndpointListing:
    """Read one page of a list; a number beyond the last page is the last page."""
    known = counts(query)
    total = known.get(query.status, 0) if query.status else sum(known.values())
    page = CountedPages(_ordered(query.matching()), total).get_page(number)
    endpoints = list(page.object_list)
    drawn = strips.of_endpoints(endpoints, now)
    rows = [EndpointRow(endpoint, now, drawn[endpoint.pk]) for endpoint in endpoints]
    return EndpointListing(now, query, page, rows, known, _picture(query, now))


def _ordered(endpoints: QuerySet[Endpoint]) -> QuerySet[Endpoint]:
    rank = Case(*(When(status=status, then=Value(n)) for n, status in enumerate(TONES)))
    order = (rank, F("certificate__not_after").asc(nulls_last=True), "host", "port", "pk")
    needed = ("host", "port", "server_name", "starttls", "status", "status_since", "scanned_at")
    return (
        endpoints.select_related("certificate")
        .only(*needed, "certificate__not_after", "certificate__issuer")
        .annotate(brief=Left("reason", SHOWN_TEXT))
        .order_by(*order)
    )


def _picture(query: EndpointFilter, now: datetime) -> picture.Picture:
    """Return when what matches expires; the database answers with a row a day at most."""
    expiring = query.matching().filter(
        certificate__not_after__gte=now, certificate__not_after__lt=now + picture.YEAR
    )
    days = (
        expiring.values(day=TruncDate("certificate__not_after", tzinfo=UTC))
        .annotate(n=Count("pk"))
        .order_by("day")
    )
    return picture.draw(((row["day"], row["n"]) for row in days), now)


def choices(query: EndpointFilter) -> dict[str, list[Choice]]:
    """Return what each filter offers."""
    groups = [(name, name) for name in Group.objects.values_list("name", flat=True)]
    authorities = [(name, name) for name in Authority.objects.values_list("name", flat=True)]
    protocols = [(value or "tls", str(label)) for value, label in Endpoint.StartTls.choices]
    offered = {
        "group": groups,
        "authority": [(SYSTEM, "the system's store"), *authorities],
        "protocol": protocols,
    }
    return {name: listing.choices(getattr(query, name), pairs) for name, pairs in offered.items()}


# --- One endpoint -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Link:
    """One certificate of a presented chain; the chain's fault may lie with it."""

    depth: int
    certificate: Certificate
    at_fault: bool

    @property
    def names(self) -> Sequence[str]:
        """The first of its names."""
        return list(self.certificate.san[:SHOWN_NAMES])

    @property
    def more_names(self) -> int:
        """How many names are not shown."""
        return max(0, len(self.certificate.san) - SHOWN_NAMES)


@dataclass(frozen=True)
class Asked:
    """A person's question with its answer."""

    verification: Verification

    @property
    def tone(self) -> str:
        """How the answer looks."""
        match self.verification.outcome:
            case Verification.Outcome.RENEWED:
                return "ok"
            case Verification.Outcome.PARTLY | Verification.Outcome.NOT_YET:
                return "warn"
            case "":
                return "idle"
        return "bad"

    @property
    def answers(self) -> list[dict[str, object]]:
        """What each address presents; times as times."""
        return [
            {**one, "until": datetime.fromisoformat(str(until)) if until else None}
            for one in self.verification.found
            for until in [one.get("until")]
        ]


@dataclass(frozen=True)
class EndpointDetail:
    """One endpoint with everything that is known about it."""

    row: EndpointRow
    links: Sequence[Link]
    changes: Sequence[Change]
    observations: Sequence[Observation]
    asked: Sequence[Asked]
    twins: Sequence[Endpoint]


def read_detail(endpoint: Endpoint, now: datetime) -> EndpointDetail:
    """Read an endpoint's chain and history."""
    strip = strips.of_endpoints([endpoint], now)[endpoint.pk]
    return EndpointDetail(
        row=EndpointRow(endpoint, now, strip),
        links=_links(endpoint),
        changes=list(endpoint.changes.all()[:MOST_CHANGES]),
        observations=list(endpoint.observations.all()[:MOST_OBSERVATIONS]),
        asked=[Asked(one) for one in endpoint.verifications.all()[:MOST_VERIFICATIONS]],
        twins=list(_twins(endpoint)),
    )


def _links(endpoint: Endpoint) -> list[Link]:
    found = Certificate.objects.defer("pem").in_bulk(endpoint.chain)
    # A fault above the presented chain is its last certificate's: what it needs is not there.
    fault = endpoint.fault_depth
    last = len(endpoint.chain) - 1
    return [
        Link(depth, found[key], fault is not None and depth == min(fault, last))
        for depth, key in enumerate(endpoint.chain)
        if key in found
    ]


def _twins(endpoint: Endpoint) -> QuerySet[Endpoint]:
    """Return the endpoints of the same name that present another certificate.

    One of them has not been renewed, or is not the server that it should be.
    """
    name = endpoint.target.name
    same = Q(server_name=name) | Q(server_name="", host=name)
    others = Endpoint.objects.filter(same, enabled=True).exclude(pk=endpoint.pk)
    differing = others.exclude(certificate=None).exclude(certificate=endpoint.certificate_id)
    return differing.select_related("certificate").defer("certificate__pem")[:MOST_TWINS]


def searches() -> list[Search]:
    """Return the last searches."""
    return list(Search.objects.defer("targets")[:MOST_SEARCHES])
