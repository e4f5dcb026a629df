"""The last 30 days of endpoints as pictures."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from soc.alerts.spans import in_words
from soc.ssl_certs.models import Endpoint, Observation

SPAN = timedelta(days=30)
HEIGHT = 34

Status = Endpoint.Status

TONES = {
    Status.INVALID: "bad",
    Status.UNREACHABLE: "bad",
    Status.CRITICAL: "bad",
    Status.ERROR: "bad",
    Status.WARNING: "warn",
    Status.OK: "ok",
    Status.UNKNOWN: "idle",
}
"""How each status looks, the worst first: this is also the order of lists."""

_HEIGHTS = dict(zip(TONES, (32, 26, 20, 16, 12, 6, 3), strict=True))
"""Each status has a height of its own, so that nobody has to tell colours apart."""


@dataclass(frozen=True)
class StatusSegment:
    """A time that a status lasted; hours from the strip's left end."""

    status: Status
    x: float
    width: float

    @property
    def tone(self) -> str:
        """How it looks."""
        return TONES[self.status]

    @property
    def height(self) -> int:
        """Its height."""
        return _HEIGHTS[self.status]

    @property
    def top(self) -> int:
        """Where it begins, so that it stands on the ground."""
        return HEIGHT - self.height


@dataclass(frozen=True)
class StatusStrip:
    """The statuses of one endpoint in 30 days; nothing is drawn before it was first scanned."""

    segments: Sequence[StatusSegment]

    @property
    def in_words(self) -> str:
        """The strip as a sentence, the longest status first."""
        hours: defaultdict[Status, float] = defaultdict(float)
        for segment in self.segments:
            hours[segment.status] += segment.width
        told = [
            f"{status.label.lower()} for {in_words(timedelta(hours=length))}"
            for status, length in sorted(hours.items(), key=lambda item: item[1], reverse=True)
        ]
        return "; ".join(told) or "not scanned yet"


def of_endpoints(endpoints: Sequence[Endpoint], now: datetime) -> dict[int, StatusStrip]:
    """Return the strips of endpoints by their keys, from what scans have written down."""
    rows: dict[int, list[tuple[datetime, str]]] = defaultdict(list)
    # A day more: the row before the left end says how the strip begins.
    since = now - SPAN - timedelta(days=1)
    found = Observation.objects.filter(endpoint__in=[e.pk for e in endpoints], at__gt=since)
    for key, at, status in found.order_by("at").values_list("endpoint_id", "at", "status"):
        rows[key].append((at, status))
    return {endpoint.pk: strip(rows[endpoint.pk], now) for endpoint in endpoints}


def strip(rows: Iterable[tuple[datetime, str]], now: datetime) -> StatusStrip:
    """Return the strip of statuses by the times at which they were observed, the oldest first."""
    start = now - SPAN
    segments: list[StatusSegment] = []
    since, current = start, None

    def close(until: datetime) -> None:
        if current is not None and until > since:
            x, width = (since - start) / timedelta(hours=1), (until - since) / timedelta(hours=1)
            segments.append(StatusSegment(current, round(x, 2), round(width, 2)))

    for at, status in rows:
        if status != current:
            close(max(at, start))
            since, current = max(at, start), Status(status)
    close(now)
    return StatusStrip(segments)
