from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from soc.alerts import rules
from soc.core import schedules


def add_rule_and_schedule(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    rules.create(
        apps,
        rules.Default(
            "ssl_certs", "authority", "No certificate of an authority's bundle ends soon"
        ),
    )
    schedules.create(
        apps,
        schedules.Schedule(
            name="watch authorities",
            task="soc.ssl_certs.tasks.report_authorities",
            when=schedules.Every(3600),
            expires=3600,
            description="Reports certificates of authorities' bundles that end soon.",
        ),
    )


class Migration(migrations.Migration):
    dependencies = (
        ("ssl_certs", "0009_default_policy"),
        ("alerts", "0002_schedules_and_roles"),
        schedules.LATEST_BEAT_MIGRATION,
    )
    operations = (migrations.RunPython(add_rule_and_schedule, migrations.RunPython.noop),)
