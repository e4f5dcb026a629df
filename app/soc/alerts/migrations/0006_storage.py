from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from soc.alerts.rules import Default, create


def add_rules(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    create(apps, Default("core", "storage", "The volumes have room", {"needed": 2, "window": 3}))


class Migration(migrations.Migration):
    dependencies = (("alerts", "0005_severity_peak"),)
    operations = (migrations.RunPython(add_rules, migrations.RunPython.noop),)
