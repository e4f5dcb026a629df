"""The depth of queues over the last 24 hours as pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db.models import Max
from django.db.models.functions import TruncMinute

from soc.core.models import QueueSample

DAY = timedelta(days=1)
STEP = timedelta(minutes=5)
STEPS = DAY // STEP
WIDTH, HEIGHT = 5 * STEPS, 120
"""Of the picture's own units; the page stretches it."""

LEAST = 10
"""The depth that fills the picture at least: one waiting message must not look like a storm."""


@dataclass(frozen=True)
class BacklogPicture:
    """The highest depth in each five minutes, the oldest first; None where nobody looked."""

    depths: Sequence[int | None]

    @property
    def highest(self) -> int:
        """The highest of all."""
        return max((depth for depth in self.depths if depth is not None), default=0)

    @property
    def path(self) -> str:
        """The SVG path of the area below the depths."""
        scale = (HEIGHT - 2) / max(self.highest, LEAST)
        parts, drawing = [], False
        for place, depth in enumerate([*self.depths, None]):
            x = place * WIDTH // STEPS
            if depth is None:
                if drawing:
                    parts.append(f"H{x}V{HEIGHT}z")
                drawing = False
                continue
            parts.append(f"{'H' if drawing else f'M{x} {HEIGHT}H'}{x}V{HEIGHT - depth * scale:.1f}")
            drawing = True
        return "".join(parts)

    @property
    def unknown(self) -> int:
        """For how many of the five minutes nothing is known."""
        return sum(depth is None for depth in self.depths)


def of_day(now: datetime) -> Mapping[str, BacklogPicture]:
    """Return the pictures of all queues by their names, in one query."""
    samples = (
        QueueSample.objects.filter(at__gt=now - DAY, at__lte=now)
        .order_by()
        .values_list("queue", TruncMinute("at", tzinfo=UTC))
        .annotate(highest=Max("depth"))
    )
    depths: dict[str, list[int | None]] = {}
    for queue, minute, highest in samples:
        known = depths.setdefault(queue, [None] * STEPS)
        ago = min(STEPS - 1, max(0, (now - minute) // STEP))
        place = STEPS - 1 - ago
        known[place] = max(known[place] or 0, highest)
    return {queue: BacklogPicture(known) for queue, known in depths.items()}
