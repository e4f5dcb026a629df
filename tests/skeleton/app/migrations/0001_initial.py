from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from soc.alerts import rules
from soc.core import roles
from soc.schedules.schedules import LATEST_BEAT_MIGRATION, Every, Schedule, create


def add_defaults(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    rules.create(apps, rules.Default("demo", "limit", "The counter is below its limit"))
    roles.grant(apps, "demo", {"Viewers": {"view_democounter"}, "Operators": {"view_democounter"}})
    create(
        apps,
        Schedule(
            name="watch demo",
            task="soc.demo.tasks.watch",
            when=Every(60),
            expires=60,
            description="Reports counters that are above their limits.",
        ),
    )


class Migration(migrations.Migration):
    initial = True
    dependencies = (
        ("alerts", "0002_schedules_and_roles"),
        *roles.NEEDED_MIGRATIONS,
        LATEST_BEAT_MIGRATION,
    )
    operations = (
        migrations.CreateModel(
            name="DemoCounter",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=100, unique=True)),
                ("value", models.PositiveIntegerField(default=0)),
                (
                    "limit",
                    models.PositiveIntegerField(
                        default=100, help_text="A value above it is a warning."
                    ),
                ),
                ("enabled", models.BooleanField(default=True)),
            ],
            options={"ordering": ("name",)},
        ),
        migrations.RunPython(add_defaults, migrations.RunPython.noop),
    )
