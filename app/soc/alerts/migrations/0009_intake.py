from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from soc.alerts.rules import Default, create


def add_rules(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    create(
        apps,
        Default("alertmanager", "alert", "What an Alertmanager posts does not fire"),
        Default("grafana", "alert", "What a Grafana posts does not fire"),
    )


class Migration(migrations.Migration):
    dependencies = (("alerts", "0008_acknowledged_until"),)
    operations = (migrations.RunPython(add_rules, migrations.RunPython.noop),)
