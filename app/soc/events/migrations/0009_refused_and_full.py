from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from soc.alerts.rules import Default, create
from soc.schedules import schedules
from soc.schedules.schedules import LATEST_BEAT_MIGRATION, Every, Schedule


def add_defaults(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    create(
        apps,
        Default("events", "refused", "No message of a host is refused"),
        Default("events", "queue", "The stream's queue is far from its bound"),
    )
    schedules.create(
        apps,
        Schedule(
            name="cap dead letters of events",
            task="soc.events.tasks.cap_dead_letters",
            when=Every(60),
            expires=60,
            description="Deletes the oldest dead letters of events beyond 20,000.",
        ),
    )


class Migration(migrations.Migration):
    dependencies = (("events", "0008_field_mappings"), LATEST_BEAT_MIGRATION)
    operations = (
        migrations.AlterField(
            model_name="backlogaction",
            name="kind",
            field=models.CharField(
                choices=[
                    ("drain", "take it in quietly"),
                    ("expire", "drop what is old"),
                    ("purge", "drop everything"),
                    ("cap", "drop dead letters beyond the cap"),
                ],
                max_length=10,
            ),
        ),
        migrations.RunPython(add_defaults, migrations.RunPython.noop),
    )
