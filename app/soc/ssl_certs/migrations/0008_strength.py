from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from soc.alerts.rules import Default, create


def add_rule(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    create(
        apps,
        Default("ssl_certs", "strength", "Keys, hashes, TLS version and lifetime are up to date"),
    )


class Migration(migrations.Migration):
    dependencies = (
        ("ssl_certs", "0007_longest_interval"),
        ("alerts", "0002_schedules_and_roles"),
    )
    operations = (migrations.RunPython(add_rule, migrations.RunPython.noop),)
