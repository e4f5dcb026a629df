"""The page of a shift: what it was like, and what it hands over."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.dateformat import format as date_format
from django.utils.dateparse import parse_datetime

from soc.alerts import shifts
from soc.common import live
from soc.oncall import plan

DAY = timedelta(days=1)
LONGEST = timedelta(days=60)
SHOWN = 4
"""Shifts of each rota that the page offers."""


@dataclass(frozen=True)
class ShiftChoice:
    """A shift that the page offers."""

    label: str
    query: str
    chosen: bool


@live.page("alerts.view_alert")
def handover(request: HttpRequest) -> HttpResponse:
    """Show a shift: that of the address, the present one of the first rota, or 24 hours."""
    now = timezone.now()
    offered = _offered(now)
    since, until = _asked(request) or (offered[0][1:] if offered else (now - DAY, now))
    choices = [
        ShiftChoice(label, urlencode({"since": start.isoformat(), "until": end.isoformat()}),
               chosen=start == since)
        for label, start, end in offered
    ]  # fmt: skip
    context = {"shift": shifts.read(since, min(until, now)), "choices": choices, "now": now}
    return render(request, "alerts/handover.html", context)


def _offered(now: datetime) -> Sequence[tuple[str, datetime, datetime]]:
    """Return the present and the last shifts of each rota, with who was on call."""
    return [
        (f"{one.rota}, {span.name}, from {_brief(span.start)}", span.start, span.end)
        for one in plan.read(now)
        for span in [s for s in reversed(one.spans(now - LONGEST, now + DAY))
                     if s.person and s.start <= now][:SHOWN]
    ]  # fmt: skip


def _brief(at: datetime) -> str:
    return date_format(timezone.localtime(at), "D j M H:i")


def _asked(request: HttpRequest) -> tuple[datetime, datetime] | None:
    """Return the time that an address names; what is none, or too long, is not asked for."""
    moments = [_moment(request.GET.get(name, "")) for name in ("since", "until")]
    since, until = moments
    if since is None or until is None or not timedelta(0) < until - since <= LONGEST:
        return None
    return since, until


def _moment(text: str) -> datetime | None:
    try:
        found = parse_datetime(text)
    except ValueError:
        return None
    return found if found is not None and found.tzinfo is not None else None
