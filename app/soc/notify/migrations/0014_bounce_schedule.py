from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from soc.schedules.schedules import LATEST_BEAT_MIGRATION, Every, Schedule, create


def add_schedule(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    create(
        apps,
        Schedule(
            name="collect bounces",
            task="soc.notify.tasks.collect_bounces",
            when=Every(60),
            expires=60,
            description="Reads the mailbox to which undeliverable mail comes back, if there is one.",
        ),
    )


class Migration(migrations.Migration):
    dependencies = (("notify", "0013_bounces"), LATEST_BEAT_MIGRATION)

    operations = (migrations.RunPython(add_schedule, migrations.RunPython.noop),)
