"""An application is a folder that declares its own parts: what one lacks is named here."""

from __future__ import annotations

from collections import Counter

from django.apps import apps
from django.contrib import admin
from django.template.loader import get_template
from django.urls import get_resolver

from soc.board import data as board
from soc.common import plugins
from soc.common.nav import AdminPage


def menu_pages() -> list[AdminPage]:
    """Return every list of the admin's menu, of whichever application."""
    declared = [m.MENU for m in plugins.modules("nav") if hasattr(m, "MENU")]
    return [page for menu in declared for page in menu.pages]


def test_every_model_of_the_admin_is_in_the_menu_once() -> None:
    registered = {model._meta.label_lower for model in admin.site._registry}
    named = Counter(page.model for page in menu_pages())
    missing = registered - set(named)
    assert not missing, "add these lists to MENU in the application's nav.py"
    assert set(named) - registered == set(), "MENU names a model that admin.py does not register"
    assert max(named.values()) == 1


def test_a_panel_asks_for_a_permission_that_exists_and_has_a_name_of_its_own() -> None:
    panels = board.panels()
    assert len({panel.name for panel in panels}) == len(panels) >= 7
    for panel in panels:
        assert panel.column in board.COLUMNS
        if panel.template:
            get_template(panel.template)
        if panel.permission:
            application, _, codename = panel.permission.partition(".")
            model = codename.partition("_")[2]
            assert apps.get_model(application, model), panel


def test_every_page_at_the_top_is_an_address() -> None:
    names = {pattern.name for pattern in get_resolver().url_patterns if hasattr(pattern, "name")}
    pages = [page for m in plugins.modules("nav") for page in getattr(m, "PAGES", ())]
    assert {page.url for page in pages} <= names
