from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from soc.core.schedules import LATEST_BEAT_MIGRATION, Every, Schedule, create


def add_schedules(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    create(
        apps,
        Schedule(
            name="send due mail",
            task="soc.notify.tasks.send_due_mail",
            when=Every(30),
            expires=30,
            description="Sends mail that a wake-up missed or that is due for another try.",
        ),
    )


class Migration(migrations.Migration):
    dependencies = (("notify", "0001_initial"), LATEST_BEAT_MIGRATION)
    operations = (migrations.RunPython(add_schedules, migrations.RunPython.noop),)
