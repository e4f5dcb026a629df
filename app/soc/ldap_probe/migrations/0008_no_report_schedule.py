from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from soc.schedules.schedules import LATEST_BEAT_MIGRATION, remove


def remove_schedule(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    # Subscriptions say when they want their reports, and whether.
    remove(apps, "soc.ldap_probe.tasks.send_reports")


class Migration(migrations.Migration):
    dependencies = (("ldap_probe", "0007_replica_identity"), LATEST_BEAT_MIGRATION)
    operations = (migrations.RunPython(remove_schedule, migrations.RunPython.noop),)
