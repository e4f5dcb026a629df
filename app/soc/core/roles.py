"""Permissions that an application gives to roles, in a migration of its own."""

from collections.abc import Iterable, Mapping
from types import ModuleType

from django.apps.registry import Apps
from django.contrib.auth.management import create_permissions

NEEDED_MIGRATIONS = (
    ("auth", "0012_alter_user_first_name_max_length"),
    ("contenttypes", "0002_remove_content_type_name"),
)
"""What a migration that grants permissions depends on."""


def grant(apps: Apps, application: str, roles: Mapping[str, Iterable[str]]) -> None:
    """Give roles the permissions of an application, by their code names; an operator's edits stay.

    ``apps`` is the registry of a migration, which runs once.
    """
    # Django creates permissions after the last migration, which is too late for the roles.
    config = apps.get_app_config(application)
    config.models_module = ModuleType("models")
    create_permissions(config, apps=apps, verbosity=0)
    config.models_module = None
    permissions = apps.get_model("auth", "Permission").objects
    of_application = permissions.filter(content_type__app_label=application)
    for role, names in roles.items():
        group, _ = apps.get_model("auth", "Group").objects.get_or_create(name=role)
        group.permissions.add(*of_application.filter(codename__in=names))
