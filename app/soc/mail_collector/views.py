"""The page of the mail between domains."""

from django.contrib.auth.decorators import permission_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from soc.mail_collector import matrix

_may_see = permission_required("alerts.view_alert", raise_exception=True)


@require_safe
@never_cache
@_may_see
def mail(request: HttpRequest) -> HttpResponse:
    """Show the mail between domains."""
    return _render(request, "mail_collector/matrix.html")


@require_safe
@never_cache
@_may_see
def mail_live(request: HttpRequest) -> HttpResponse:
    """Return the part of the page that refreshes itself."""
    return _render(request, "mail_collector/matrix_live.html")


def _render(request: HttpRequest, template: str) -> HttpResponse:
    return render(request, template, {"matrix": matrix.read(timezone.now())})
