from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from soc.alerts.rules import Default, create


def add_rules(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    create(apps, Default("events", "dead-letters", "No message of the stream is refused"))


class Migration(migrations.Migration):
    dependencies = (("events", "0005_clock_rule"),)
    operations = (migrations.RunPython(add_rules, migrations.RunPython.noop),)
