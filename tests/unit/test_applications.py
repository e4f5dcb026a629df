"""An application is a folder that declares its own parts: what one lacks is named here."""

from __future__ import annotations

from collections import Counter
from importlib import import_module
from types import ModuleType

from django.apps import apps
from django.contrib import admin
from django.template.loader import get_template
from django.urls import get_resolver

from soc.board import data as board
from soc.common import plugins
from soc.common.nav import AdminPage
from soc.core.sealed import sealed_fields
from soc.provision.site import SEALERS
from soc.runtime.queues import BY_APPLICATION


def package(application: str) -> ModuleType:
    """Return an application's package."""
    return import_module(f"soc.{application}")


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


def test_an_application_with_sealed_fields_gives_its_worker_the_keys() -> None:
    sealed = {model._meta.app_label for model, _ in sealed_fields()}
    declared = {name for name in BY_APPLICATION if getattr(package(name), "SEALS", False)}
    assert sealed & set(BY_APPLICATION) == declared, "declare SEALS in the package's __init__.py"
    assert {"web", "migrate"} | {BY_APPLICATION[name].service for name in declared} == set(SEALERS)


def test_every_page_at_the_top_is_an_address() -> None:
    names = {pattern.name for pattern in get_resolver().url_patterns if hasattr(pattern, "name")}
    pages = [page for m in plugins.modules("nav") for page in getattr(m, "PAGES", ())]
    assert {page.url for page in pages} <= names
