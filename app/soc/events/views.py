"""The page of the queues: how far behind each is, over time."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from soc.alerts.spans import in_words
from soc.common import live
from soc.events import backlog, pictures, shippers
from soc.events.ingest import COUNTS
from soc.events.models import BacklogAction, DeadLetter, IngestCount, Shipper

LATE = timedelta(minutes=5)
"""The age of the oldest message from which a queue looks late."""

MOST_ACTIONS = 10


@dataclass(frozen=True)
class QueueRow:
    """One queue as the page shows it."""

    backlog: backlog.Backlog
    picture: pictures.BacklogPicture
    age: str
    left: str

    @property
    def tone(self) -> str:
        """How it looks."""
        if self.backlog.depth is None:
            return "idle"
        late = self.backlog.age is not None and self.backlog.age > LATE
        return "warn" if late or self.backlog.dead else "ok"


@require_safe
@never_cache
def queues(request: HttpRequest) -> HttpResponse:
    """Show the backlog of every queue."""
    now = timezone.now()
    context = {
        "now": now,
        "rows": _rows(now),
        "counts": _counts(now),
        "letters": DeadLetter.objects.filter(state=DeadLetter.State.WAITING).count(),
        "actions": BacklogAction.objects.all()[:MOST_ACTIONS],
    }
    return render(request, "events/queues.html", context)


def _rows(now: datetime) -> Sequence[QueueRow]:
    drawn = pictures.of_day(now)
    nothing = pictures.BacklogPicture([None] * pictures.STEPS)
    return [
        QueueRow(
            backlog=one,
            picture=drawn.get(one.queue.name, nothing),
            age=f"less than {in_words(one.age)}" if one.age is not None else "",
            left=_left(one),
        )
        for one in backlog.read(now)
    ]


def _left(one: backlog.Backlog) -> str:
    if not one.depth:
        return ""
    return in_words(one.to_drain) if one.to_drain is not None else "not at this rate"


def _counts(now: datetime) -> dict[str, int]:
    """Return what became of the stream's messages in the last hour."""
    late = IngestCount.objects.filter(minute__gt=now - timedelta(hours=1))
    sums = late.aggregate(**{f"sum_{name}": Sum(name) for name in COUNTS})
    return {name: sums[f"sum_{name}"] or 0 for name in COUNTS}


# --- Shippers -----------------------------------------------------------------------------------

VIEW_SHIPPERS = "events.view_event"
"""What they have sent are events, as those are."""


def _shippers(_: HttpRequest) -> dict[str, object]:
    now = timezone.now()
    return {"now": now, "rows": shippers.read(now)}


def _shipper(_: HttpRequest, key: int) -> dict[str, object]:
    shipper = get_object_or_404(Shipper, pk=key)
    now = timezone.now()
    (row,) = (row for row in shippers.read(now) if row.shipper == shipper)
    messages = list(shipper.messages.all()[: shippers.MOST_KEPT])
    return {"now": now, "row": row, "messages": messages, "longest": shippers.LONGEST_KEPT}


all_shippers, all_shippers_live = live.pages("events/shippers.html", VIEW_SHIPPERS, _shippers)
one_shipper, one_shipper_live = live.pages("events/shipper.html", VIEW_SHIPPERS, _shipper)
