from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from soc.schedules.schedules import LATEST_BEAT_MIGRATION, remove


def remove_schedule(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    # Subscriptions say when they want their reports, and whether.
    remove(apps, "soc.mail_collector.tasks.send_site_reports")


class Migration(migrations.Migration):
    dependencies = (("mail_collector", "0002_rules_and_schedules"), LATEST_BEAT_MIGRATION)
    operations = (
        migrations.RunPython(remove_schedule, migrations.RunPython.noop),
        migrations.RemoveField("mailsettings", "report_times"),
        migrations.DeleteModel("SiteReport"),
    )
