"""The pages of robots and their sites."""

from django.contrib.auth.decorators import permission_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from soc.events.models import Site
from soc.robots import data

_may_see = permission_required("alerts.view_alert", raise_exception=True)


@require_safe
@never_cache
@_may_see
def robots(request: HttpRequest) -> HttpResponse:
    """Show all robots."""
    return _render(request, "robots/list.html", overview=data.read_overview(timezone.now()))


@require_safe
@never_cache
@_may_see
def robots_live(request: HttpRequest) -> HttpResponse:
    """Return the part of the list that refreshes itself."""
    return _render(request, "robots/list_live.html", overview=data.read_overview(timezone.now()))


@require_safe
@never_cache
@_may_see
def site(request: HttpRequest, key: int) -> HttpResponse:
    """Show one site."""
    return _render(request, "robots/site.html", page=_page(key))


@require_safe
@never_cache
@_may_see
def site_live(request: HttpRequest, key: int) -> HttpResponse:
    """Return the part of a site's page that refreshes itself."""
    return _render(request, "robots/site_live.html", page=_page(key))


def _page(key: int) -> data.SitePage:
    return data.read_site(get_object_or_404(Site, pk=key), timezone.now())


def _render(request: HttpRequest, template: str, **context: object) -> HttpResponse:
    return render(request, template, context)
