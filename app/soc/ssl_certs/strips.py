"""The last 30 days of endpoints as pictures."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from soc.alerts.spans import in_words
from soc.common import charts
from soc.common.charts import Stretch
from soc.ssl_certs.models import Endpoint, Observation

SPAN = timedelta(days=30)
HOUR = timedelta(hours=1)
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


class StatusSegment(Stretch[Status]):
    """A time that a status lasted; hours from the strip's left end."""

    @property
    def tone(self) -> str:
        """How it looks."""
        return TONES[self.value]

    @property
    def height(self) -> int:
        """Its height."""
        return _HEIGHTS[self.value]

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
        found = charts.lengths(self.segments, HOUR)
        words = [f"{status.label.lower()} for {in_words(length)}" for status, length in found]
        return "; ".join(words) or "not scanned yet"


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
    observed = ((at, Status(status)) for at, status in rows)
    drawn = charts.stretches(observed, (now - SPAN, now), HOUR)
    return StatusStrip([StatusSegment(one.value, one.x, one.width) for one in drawn])
