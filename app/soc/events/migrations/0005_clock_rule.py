from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from soc.alerts.rules import Default, create


def add_rules(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    create(apps, Default("events", "clock", "The robot's clock is right"))


class Migration(migrations.Migration):
    dependencies = (("events", "0004_clocks"), ("alerts", "0006_storage"))
    operations = (migrations.RunPython(add_rules, migrations.RunPython.noop),)
