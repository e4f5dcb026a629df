from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from soc.alerts.rules import Default, create


def add_rules(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    create(apps, Default("events", "expected", "The robot was heard of once it was entered"))


class Migration(migrations.Migration):
    dependencies = (("events", "0011_bot_expected"), ("alerts", "0006_storage"))
    operations = (migrations.RunPython(add_rules, migrations.RunPython.noop),)
