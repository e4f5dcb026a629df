from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from soc.core.schedules import Every, Schedule, create


def add_schedules(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    create(
        apps,
        Schedule(
            name="ping the monitor outside",
            task="soc.core.tasks.ping_outside",
            when=Every(60),
            expires=60,
            description="Asks for SOC_PING_URL, if one is set and all is well.",
        ),
    )


class Migration(migrations.Migration):
    dependencies = (("core", "0004_dead_letters"),)
    operations = (migrations.RunPython(add_schedules, migrations.RunPython.noop),)
