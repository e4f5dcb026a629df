"""The frame of the pages: their navigation, and the admin's badge, icon, script and style."""

from collections.abc import Iterable, Iterator
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse

from soc.common import plugins
from soc.common.nav import AdminPage, Page


def flower_link() -> str:
    """Return the address of Flower as browsers reach it."""
    return f"https://{settings.ALLOWED_HOSTS[0]}:{settings.SITE['SOC_FLOWER_PORT']}/"


def context(request: HttpRequest) -> dict[str, Any]:
    """Return what every page knows of its site, for templates."""

    def pages() -> Iterator[Page]:
        """Yield the pages that the user may see; no page of an error asks."""
        for module in plugins.modules("nav"):
            for page in getattr(module, "PAGES", ()):
                if not page.permission or request.user.has_perm(page.permission):
                    yield page

    return {
        "site_name": settings.SITE["SOC_SITE"],
        "site_time_zone": settings.TIME_ZONE,
        "flower_link": flower_link(),
        "pages_at_the_top": pages,
    }


def menu(request: HttpRequest) -> list[dict[str, Any]]:
    """Return the admin's menu: the pages that the user may see, and the way to the others."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for module in plugins.modules("nav"):
        if hasattr(module, "MENU"):
            items = _items(request, module.MENU.pages)
            groups.setdefault(module.MENU.title, []).extend(items)
    away = [
        _away("Board", "monitoring", reverse("board")),
        _away("Flower", "local_florist", flower_link()),
    ]
    return [
        {"items": away},
        *(
            {"title": title, "separator": True, "items": items}
            for title, items in groups.items()
            if items
        ),
    ]


def _items(request: HttpRequest, pages: Iterable[AdminPage]) -> list[dict[str, Any]]:
    return [
        {"title": page.title, "icon": page.icon, "link": _list_of(page.model)}
        for page in pages
        if request.user.has_perm(page.permission)
    ]


def _away(title: str, icon: str, link: str) -> dict[str, Any]:
    # Said outright: the menu would take "/" for a part of every page's address.
    return {"title": title, "icon": icon, "link": link, "active": False}


def _list_of(model: str) -> str:
    return reverse(f"admin:{model.replace('.', '_')}_changelist")


def badge(request: HttpRequest) -> list[str]:
    """Return the site's name as the badge next to the user's menu."""
    return [settings.SITE["SOC_SITE"], "info"]


def icon(request: HttpRequest) -> str:
    """Return the address of the site's icon."""
    return static("favicon.svg")


def script(request: HttpRequest) -> str:
    """Return the address of the script that settles how the theme's libraries work."""
    return static("admin.js")


def style(request: HttpRequest) -> str:
    """Return the address of what the theme has no class for."""
    return static("admin.css")
