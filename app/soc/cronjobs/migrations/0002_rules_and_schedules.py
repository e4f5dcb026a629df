from django.apps.registry import Apps
from django.contrib.auth.management import create_permissions
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from soc.alerts import rules
from soc.schedules.schedules import LATEST_BEAT_MIGRATION, Every, Schedule, create


def add_defaults(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    rules.create(apps, rules.Default("cronjobs", "ran", "The job has run"))
    create(
        apps,
        Schedule(
            name="watch cron jobs",
            task="soc.cronjobs.tasks.watch",
            when=Every(60),
            expires=60,
            description="Reports jobs elsewhere that have not asked for their address in time.",
        ),
    )


def add_permissions(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    # Django creates permissions after the last migration, which is too late for the groups.
    application = apps.get_app_config("cronjobs")
    application.models_module = True
    create_permissions(application, apps=apps, verbosity=0)
    application.models_module = None
    permission = apps.get_model("auth", "Permission").objects.get(
        content_type__app_label="cronjobs", codename="view_cronjob"
    )
    for group in apps.get_model("auth", "Group").objects.filter(name__in=("Viewers", "Operators")):
        group.permissions.add(permission)


class Migration(migrations.Migration):
    dependencies = (
        ("cronjobs", "0001_initial"),
        ("alerts", "0002_schedules_and_roles"),
        ("auth", "0012_alter_user_first_name_max_length"),
        LATEST_BEAT_MIGRATION,
    )
    operations = (
        migrations.RunPython(add_defaults, migrations.RunPython.noop),
        migrations.RunPython(add_permissions, migrations.RunPython.noop),
    )
