from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from soc.core.schedules import LATEST_BEAT_MIGRATION, Cron, Every, Schedule, create


def add_schedules(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    create(
        apps,
        Schedule(
            name="sample the queues",
            task="soc.core.tasks.sample_queues",
            when=Every(15),
            expires=15,
            description="Records depth and consumers of every queue for the board.",
        ),
        Schedule(
            name="housekeeping",
            task="soc.core.tasks.keep_house",
            when=Cron(minute="20", hour="3"),
            expires=4 * 3600,
            description="Deletes what is past its retention.",
        ),
    )


class Migration(migrations.Migration):
    dependencies = (("core", "0001_initial"), LATEST_BEAT_MIGRATION)
    operations = (migrations.RunPython(add_schedules, migrations.RunPython.noop),)
