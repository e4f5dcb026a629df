from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from soc.alerts import rules
from soc.core import roles
from soc.schedules.schedules import LATEST_BEAT_MIGRATION, Every, Schedule, create

VIEWERS = {"view_inventorysource", "view_inventoryrun"}
ROLES = {"Viewers": VIEWERS, "Operators": VIEWERS | {"run_inventorysource"}}


def add_defaults(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    rules.create(
        apps,
        rules.Default("inventory", "source", "The inventory can be read and understood"),
        rules.Default("inventory", "missing", "The inventory has what it had before"),
    )
    roles.grant(apps, "inventory", ROLES)
    create(
        apps,
        Schedule(
            name="read inventories",
            task="soc.inventory.tasks.run_due",
            when=Every(30),
            expires=30,
            description="Imports the inventory source that is due, or makes its dry run.",
        ),
    )


class Migration(migrations.Migration):
    dependencies = (
        ("inventory", "0001_initial"),
        ("alerts", "0002_schedules_and_roles"),
        *roles.NEEDED_MIGRATIONS,
        LATEST_BEAT_MIGRATION,
    )
    operations = (migrations.RunPython(add_defaults, migrations.RunPython.noop),)
