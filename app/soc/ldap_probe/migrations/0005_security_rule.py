from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from soc.alerts.rules import Default, create


def add_rule(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    description = "The connection is as secure as the server demands"
    create(apps, Default("ldap_probe", "security", description, {"needed": 2, "window": 2}))


class Migration(migrations.Migration):
    dependencies = (("ldap_probe", "0004_security_and_expiry"),)
    operations = (migrations.RunPython(add_rule, migrations.RunPython.noop),)
