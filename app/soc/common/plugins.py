"""What applications declare in modules of their own: ``urls``, ``nav``, ``linked`` and the like."""

from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

from django.apps import apps
from django.utils.module_loading import module_has_submodule


def modules(name: str) -> Iterator[ModuleType]:
    """Yield the module ``name`` of each application of ours that has one, as they are installed.

    Raises:
        ImportError: a module is there but cannot be imported.
    """
    for config in apps.get_app_configs():
        if config.name.startswith("soc.") and module_has_submodule(config.module, name):
            yield import_module(f"{config.name}.{name}")
