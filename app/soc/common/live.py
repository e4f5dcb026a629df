"""Pages that refresh a part of themselves: two addresses, one reading."""

from collections.abc import Callable, Mapping
from typing import Any

from django.contrib.auth.decorators import permission_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

View = Callable[..., HttpResponse]
Read = Callable[..., Mapping[str, Any]]


def page(permission: str) -> Callable[[View], View]:
    """Make a view one of a page: for GET and HEAD, never cached, refused without a permission."""

    def decorate(view: View) -> View:
        allowed = permission_required(permission, raise_exception=True)(view)
        return require_safe(never_cache(allowed))

    return decorate


def pages(
    template: str, permission: str, read: Read, frame: Read | None = None
) -> tuple[View, View]:
    """Return the views of a page and of its part that refreshes itself.

    `read` takes the request and the address's arguments and returns what both show, `frame` what
    is around the part. The part's template is the page's with ``_live`` before its ending, and
    its address the page's with ``live/`` behind.
    """

    @page(permission)
    def whole(request: HttpRequest, **arguments: Any) -> HttpResponse:
        around = frame(request, **arguments) if frame else {}
        query = request.META["QUERY_STRING"]
        address = f"{request.path}live/{'?' if query else ''}{query}"
        context = {"live_address": address, **read(request, **arguments), **around}
        return render(request, template, context)

    @page(permission)
    def part(request: HttpRequest, **arguments: Any) -> HttpResponse:
        return render(request, template.replace(".html", "_live.html"), read(request, **arguments))

    return whole, part
