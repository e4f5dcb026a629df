"""The board: the whole site at a glance, put together from every application."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render


def board(request: HttpRequest) -> HttpResponse:
    """Show the board."""
    return render(request, "board.html")


def live(request: HttpRequest) -> HttpResponse:
    """Return the part of the board that refreshes itself."""
    return render(request, "board_live.html")
