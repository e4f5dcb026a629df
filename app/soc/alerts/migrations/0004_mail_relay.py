from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from soc.alerts.rules import Default, create


def add_rules(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    create(
        apps,
        Default(
            "core", "mail-relay", "The relay takes the site's mail", {"needed": 3, "window": 4}
        ),
    )


class Migration(migrations.Migration):
    dependencies = (("alerts", "0003_beat_lag"),)
    operations = (migrations.RunPython(add_rules, migrations.RunPython.noop),)
