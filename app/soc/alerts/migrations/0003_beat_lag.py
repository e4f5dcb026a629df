from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from soc.alerts.rules import Default, create


def add_rules(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    create(
        apps,
        Default("core", "beat-lag", "Schedules run when they are due", {"needed": 3, "window": 4}),
    )


class Migration(migrations.Migration):
    dependencies = (("alerts", "0002_schedules_and_roles"),)
    operations = (migrations.RunPython(add_rules, migrations.RunPython.noop),)
