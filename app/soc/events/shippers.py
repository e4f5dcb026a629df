"""What each shipper has sent of late, and what became of it.

A shipper is known by the exchange that it published to, where nobody else may: what a message says
of its sender is not believed. What is kept is for a person who sets a shipper up, and not for a
judge: a worker that dies loses the counts of its last batch.
"""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median

from django.db import Error, connection, transaction
from django.db.models import Max, Sum
from django.utils import timezone

from soc.common.times import local
from soc.events import clocks
from soc.events.bodies import Malformed
from soc.events.ingest import Refusal
from soc.events.models import EventSource, Shipper, ShipperCount, ShipperMessage
from soc.events.shapes import Part
from soc.events.statements import least, upsert
from soc.provision.shippers import EXCHANGE

MOST_KEPT = 20
"""Messages that are kept of each shipper."""

LONGEST_KEPT = 4_000
"""Bytes that are kept of each."""

SHOWN_EVERY = 1.0
"""Seconds between two batches of which a shipper's messages are kept; all are counted."""

REMEMBERED = 10.0
"""Seconds for which sources are remembered."""

RATE_OVER = timedelta(minutes=5)
SKEW_OVER = timedelta(hours=1)

logger = logging.getLogger(__name__)


def name_of(exchange: str) -> str:
    """Return the name of the shipper that an exchange belongs to."""
    return exchange.removeprefix(EXCHANGE)


class ShipperLog:
    """Notes what came from whom, for one thread."""

    def __init__(self) -> None:
        self._keys: dict[str, int] = {}
        self._shown_at: dict[str, float] = {}
        self._sources_until = 0.0
        self._allowed: set[tuple[str, str]] = set()

    def note(
        self, exchanges: Sequence[str], parts: Sequence[Part], refusals: Iterable[Refusal]
    ) -> None:
        """Note a batch that has been stored; its failure is nobody's but its own."""
        reasons = dict(refusals)
        places: dict[str, list[int]] = {}
        for place, exchange in enumerate(exchanges):
            places.setdefault(name_of(exchange), []).append(place)
        now = timezone.now()
        try:
            with transaction.atomic():
                _count(
                    now,
                    [
                        (
                            self._key(name),
                            [parts[p] for p in found],
                            sum(p in reasons for p in found),
                        )
                        for name, found in sorted(places.items())
                    ],
                )
                for name, found in sorted(places.items()):
                    came = [(parts[p], reasons.get(p)) for p in found[-MOST_KEPT:]]
                    self._keep(name, came, now)
        except Error as error:
            self._keys.clear()
            logger.warning("What %s have sent is not noted: %s", ", ".join(sorted(places)), error)

    def _key(self, name: str) -> int:
        if name not in self._keys:
            self._keys[name] = Shipper.objects.get_or_create(name=name)[0].pk
        return self._keys[name]

    def _keep(self, name: str, came: Sequence[tuple[Part, str | None]], now: datetime) -> None:
        if time.monotonic() - self._shown_at.get(name, float("-inf")) < SHOWN_EVERY:
            return
        self._shown_at[name] = time.monotonic()
        key = self._key(name)
        if time.monotonic() >= self._sources_until:
            allowed = EventSource.objects.filter(allowed=True)
            self._allowed = set(allowed.values_list("provider", "channel"))
            self._sources_until = time.monotonic() + REMEMBERED
        ShipperMessage.objects.bulk_create(
            self._message(key, part, reason, now) for part, reason in came
        )
        newest = ShipperMessage.objects.filter(shipper=key).order_by("-pk")
        if oldest := list(newest.values_list("pk", flat=True)[MOST_KEPT : MOST_KEPT + 1]):
            ShipperMessage.objects.filter(shipper=key, pk__lte=oldest[0]).delete()

    def _message(self, key: int, part: Part, reason: str | None, now: datetime) -> ShipperMessage:
        body, event = part.body, part.event
        content = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
        if reason is not None or isinstance(event, Malformed):
            accepted, outcome = False, f"refused: {reason or event}"
        elif (event.provider, event.channel) not in self._allowed:
            accepted = False
            outcome = (
                f"read, but dropped: the source {event.provider} in {event.channel} is not allowed"
            )
        else:
            accepted = True
            outcome = f"accepted: event {event.event_id} of {event.host}, {local(event.at)}"
        return ShipperMessage(
            shipper_id=key,
            at=now,
            body=content[:LONGEST_KEPT],
            size=len(content),
            accepted=accepted,
            outcome=outcome,
        )


def _count(now: datetime, came: Iterable[tuple[int, Sequence[Part], int]]) -> None:
    """Count what came from shippers in this minute: their keys, parts and numbers of refusals."""
    minute = connection.ops.adapt_datetimefield_value(now.replace(second=0, microsecond=0))
    rows = []
    for key, parts, refused in came:
        times = (part.event.at for part in parts if not isinstance(part.event, Malformed))
        newest = max(times, default=None)
        delay = (now - newest).total_seconds() if newest else None
        rows.append((key, minute, len(parts), refused, delay))
    sums = {name: f"{name} + {{new}}" for name in ("messages", "refused")}
    upsert("events_shippercount", ("shipper_id", "minute"), {**sums, "delay": least("delay")}, rows)


# --- The page -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShipperRow:
    """A shipper as the list shows it: of the last 24 hours, ``rate`` of the last 5 minutes."""

    shipper: Shipper
    last: datetime | None
    rate: float
    messages: int
    refused: int
    skew: str

    @property
    def tone(self) -> str:
        """How it looks."""
        if self.shipper.revoked_at or self.last is None:
            return "idle"
        return "warn" if self.refused else "ok"

    @property
    def label(self) -> str:
        """How it is, in a word or two."""
        if self.shipper.revoked_at:
            return "revoked"
        if self.last is None:
            return "never heard of"
        return "messages refused" if self.refused else "in order"


def read(now: datetime) -> list[ShipperRow]:
    """Return every shipper, in a fixed number of queries."""
    day = ShipperCount.objects.filter(minute__gt=now - timedelta(days=1)).order_by()
    sums = {
        key: (messages, refused)
        for key, messages, refused in day.values_list("shipper").annotate(
            Sum("messages"), Sum("refused")
        )
    }
    of_late = day.filter(minute__gt=now - RATE_OVER).values_list("shipper")
    rates = dict(of_late.annotate(Sum("messages")))
    shippers = Shipper.objects.annotate(last=Max("messages__at"))
    skews = _skews(now)
    return [
        ShipperRow(
            shipper=shipper,
            last=shipper.last,
            rate=rates.get(shipper.pk, 0) / RATE_OVER.total_seconds(),
            messages=sums.get(shipper.pk, (0, 0))[0],
            refused=sums.get(shipper.pk, (0, 0))[1],
            skew=clocks.in_short(skews.get(shipper.pk)),
        )
        for shipper in shippers
    ]


def _skews(now: datetime) -> Mapping[int, timedelta]:
    """Return by how much the events of each shipper come after their time, at the median."""
    delays: dict[int, list[float]] = {}
    late = ShipperCount.objects.filter(minute__gt=now - SKEW_OVER)
    for key, delay in late.values_list("shipper_id", "delay"):
        if delay is not None:
            delays.setdefault(key, []).append(delay)
    return {key: timedelta(seconds=median(found)) for key, found in delays.items()}
