from django.apps.registry import Apps
from django.contrib.auth.management import create_permissions
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from soc.core.schedules import LATEST_BEAT_MIGRATION, Every, Schedule, create

SEEN = ("alert", "alertevent", "rule", "silence", "subject")
VIEWERS = {f"view_{model}" for model in SEEN}
ROLES = {
    "Viewers": VIEWERS,
    "Operators": VIEWERS | {"operate_alert", "add_silence", "change_silence", "delete_silence"},
    "Reporters": {"report_condition"},
}


def add_schedules(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    create(
        apps,
        Schedule(
            name="make the rounds of alerts",
            task="soc.alerts.tasks.make_rounds",
            when=Every(15),
            expires=15,
            description="Reminds, escalates, begins and ends silences, ends flapping.",
        ),
        Schedule(
            name="send reports",
            task="soc.alerts.tasks.send_reports",
            when=Every(60),
            expires=60,
            description="Mails the daily and weekly reports to the subscriptions that are due one.",
        ),
    )


def add_roles(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    # Django creates permissions after the last migration, which is too late for the groups.
    application = apps.get_app_config("alerts")
    application.models_module = True
    create_permissions(application, apps=apps, verbosity=0)
    application.models_module = None
    permissions = apps.get_model("auth", "Permission").objects.filter(
        content_type__app_label="alerts"
    )
    for name, codenames in ROLES.items():
        group, created = apps.get_model("auth", "Group").objects.get_or_create(name=name)
        if created:
            group.permissions.set(permissions.filter(codename__in=codenames))


class Migration(migrations.Migration):
    dependencies = (
        ("alerts", "0001_initial"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
        LATEST_BEAT_MIGRATION,
    )
    operations = (
        migrations.RunPython(add_schedules, migrations.RunPython.noop),
        migrations.RunPython(add_roles, migrations.RunPython.noop),
    )
