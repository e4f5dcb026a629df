"""Sessions that end: a fixed time after sign-in, and a fixed time after the last act."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib import auth
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

LAST_ACT = "last_act"
NOTED_EVERY = 60
"""Seconds between two writes of the last act."""

LIVE = "live"
"""How the name of a view ends that a page asks for by itself, whether somebody watches or not."""


@receiver(user_logged_in, dispatch_uid="soc.access.sessions")
def _begin(request: HttpRequest, user: User, **_: Any) -> None:
    # A moment and not a span: every later write of the session would begin the span again.
    request.session.set_expiry(timezone.now() + timedelta(seconds=settings.SESSION_COOKIE_AGE))
    request.session[LAST_ACT] = int(time.time())


class IdleSessionMiddleware:
    """Signs out who has done nothing for as long as the site allows."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a request."""
        return self.get_response(request)

    def process_view(self, request: HttpRequest, *_: Any) -> None:
        """End the session or note the act; a page that refreshes itself is none."""
        if not request.user.is_authenticated:
            return
        now = int(time.time())
        idle = now - request.session.get(LAST_ACT, now)
        if idle > settings.SESSION_IDLE_SECONDS:
            auth.logout(request)
            return
        name = getattr(request.resolver_match, "url_name", None) or ""
        if not name.endswith(LIVE) and (idle >= NOTED_EVERY or LAST_ACT not in request.session):
            request.session[LAST_ACT] = now
