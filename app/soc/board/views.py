"""The board: the whole site at a glance, put together from every application."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from soc.board import data
from soc.common import times


@require_safe
@never_cache
def board(request: HttpRequest) -> HttpResponse:
    """Show the board."""
    return _render(request, "board.html")


@require_safe
@never_cache
def live(request: HttpRequest) -> HttpResponse:
    """Return the part of the board that refreshes itself."""
    return _render(request, "board_live.html")


def _render(request: HttpRequest, template: str) -> HttpResponse:
    board = data.read(timezone.now())
    columns = board.shown_to(request.user)
    context = {
        "live_address": reverse("board-live"),
        "board": board,
        "columns": columns,
        "shown": {part.panel.name for parts in columns.values() for part in parts},
        "zone_rules": times.zone_rules(settings.TIME_ZONE),
    }
    return render(request, template, context)
