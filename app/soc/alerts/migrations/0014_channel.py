from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from soc.alerts.rules import Default, create


def add_rules(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    create(
        apps,
        Default(
            "core", "channel", "A subscription's destination is up", {"needed": 3, "window": 4}
        ),
    )


class Migration(migrations.Migration):
    dependencies = (("alerts", "0013_help_texts"),)
    operations = (migrations.RunPython(add_rules, migrations.RunPython.noop),)
