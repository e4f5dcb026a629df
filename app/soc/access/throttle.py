"""Slows down who guesses: wrong sign-ins and wrong API tokens, counted by django-axes.

The counts are in the database, so that all processes of the web share them. A name is locked for
the address that got it wrong, not for everybody: nobody can lock a colleague out from elsewhere.
"""

from datetime import datetime, timedelta
from math import ceil
from typing import Any

from axes.attempts import get_cool_off_threshold
from axes.handlers.database import AxesDatabaseHandler
from axes.handlers.proxy import AxesProxyHandler
from axes.models import AccessAttempt
from django.conf import settings
from django.contrib.auth.models import User
from django.db.models import Max, QuerySet, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from soc.access import audit

PER_ADDRESS = 10
"""How many times as many failures an address may have as one name from it."""

TOKENS = "API token"
"""The name under which wrong tokens are counted; a user's can hold no blank."""


class Handler(AxesDatabaseHandler):
    """Counts failures by name and address, and by address alone with a higher limit."""

    def get_failures(self, request: HttpRequest, credentials: dict[str, Any] | None = None) -> int:
        """Return the count that is compared with the limit of one name."""
        of_name, of_address = self.get_user_attempts(request, credentials)
        # Programs with an old token must not close the sign-in page to people at their address.
        of_people = of_address.exclude(username=TOKENS)
        return max(_failures(of_name), _failures(of_people) // PER_ADDRESS)

    def user_login_failed(
        self,
        sender: Any,
        credentials: dict[str, Any],
        request: HttpRequest | None = None,
        **options: Any,
    ) -> None:
        """Count a failure, and record it unless the name was locked before."""
        locked_before = _is_locked(request)
        super().user_login_failed(sender, credentials, request, **options)
        if request is None or locked_before:
            return
        name = credentials.get("username")
        what = "API token" if name == TOKENS else "Sign-in"
        event = f"{what} refused" + (", and locked" if _is_locked(request) else "")
        # A name that nobody has may be a password that went into the wrong field.
        audit.note(event, request, user=User.objects.filter(username=name or "").first())


def _is_locked(request: HttpRequest | None) -> bool:
    # django-axes writes what it has found on the request.
    return getattr(request, "axes_locked_out", False)


def _failures(attempts: QuerySet[AccessAttempt]) -> int:
    return attempts.aggregate(n=Sum("failures_since_start"))["n"] or 0


def locked_until(request: HttpRequest, name: str) -> datetime:
    """Return when, at the latest, a name may try again from the address of the request."""
    recent = AccessAttempt.objects.filter(
        ip_address=getattr(request, "axes_ip_address", None),
        attempt_time__gte=get_cool_off_threshold(request),
    )
    of_name = recent.filter(username=name)
    locking = of_name if _failures(of_name) >= settings.AXES_FAILURE_LIMIT else recent
    last: datetime = locking.aggregate(last=Max("attempt_time"))["last"] or timezone.now()
    return last + settings.AXES_COOLOFF_TIME


def seconds_until(moment: datetime) -> int:
    """Return whole seconds from now, at least one."""
    return max(1, ceil((moment - timezone.now()) / timedelta(seconds=1)))


def locked_out(
    request: HttpRequest, response: HttpResponse, credentials: dict[str, Any]
) -> HttpResponse:
    """Answer on the sign-in page when to try again; an API answers in its own words."""
    if credentials.get("username") == TOKENS:
        return response
    until = locked_until(request, credentials.get("username") or "")
    page = render(request, "locked.html", {"until": until}, status=429)
    page.headers["Retry-After"] = str(seconds_until(until))
    return page


def refuse_token(request: HttpRequest) -> int:
    """Count a wrong token; return for how many seconds its address is to wait, or 0.

    A right token works all the same: 256 bits are not guessed, and no neighbour with an old token
    shall stop it.
    """
    credentials = {"username": TOKENS}
    if AxesProxyHandler.is_allowed(request, credentials):
        AxesProxyHandler.user_login_failed(__name__, credentials, request)
        return 0
    return seconds_until(locked_until(request, TOKENS))
