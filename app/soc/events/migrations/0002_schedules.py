from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from soc.core.schedules import LATEST_BEAT_MIGRATION, Every, Schedule, create
from soc.events.sources import Source, allow


def add_defaults(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    apps.get_model("events", "StreamSettings").objects.get_or_create(pk=1)
    allow(apps, Source("SOC Robot", "Application", "what robots say to be heard of"))
    create(
        apps,
        Schedule(
            name="forget old events",
            task="soc.events.tasks.forget_old",
            when=Every(600),
            expires=600,
            description="Deletes events, and what was made of them, past their time.",
        ),
    )


class Migration(migrations.Migration):
    dependencies = (("events", "0001_initial"), LATEST_BEAT_MIGRATION)
    operations = (migrations.RunPython(add_defaults, migrations.RunPython.noop),)
