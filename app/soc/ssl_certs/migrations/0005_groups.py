from django.apps.registry import Apps
from django.contrib.auth.management import create_permissions
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from soc.core.schedules import LATEST_BEAT_MIGRATION, Every, Schedule, create

DEFAULT_DAYS = (30, 7)
SEEN = ("authority", "certificate", "change", "endpoint", "group", "observation", "verification")


def carry_days_over(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    """Give endpoints with days of their own a group that warns as they did: the days alone."""
    endpoints = apps.get_model("ssl_certs", "Endpoint").objects
    groups = apps.get_model("ssl_certs", "Group").objects
    for warning, critical in endpoints.values_list("warning_days", "critical_days").distinct():
        if (warning, critical) == DEFAULT_DAYS:
            continue
        group, _created = groups.get_or_create(
            name=f"{warning} and {critical} days",
            defaults={
                **{"warning_days": warning, "error_days": critical, "critical_days": critical},
                **dict.fromkeys(("warning_share", "error_share", "critical_share"), 100),
            },
        )
        endpoints.filter(warning_days=warning, critical_days=critical).update(group=group)


def add_schedule(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    create(
        apps,
        Schedule(
            name="fetch revocation lists",
            task="soc.ssl_certs.tasks.fetch_lists",
            when=Every(300),
            expires=300,
            description="Fetches the CRLs that trusted certificates name, ahead of the scans.",
        ),
    )


def let_people_see(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    """Let the roles of the alerts see certificates, and operators have them scanned."""
    # Django creates permissions after the last migration, which is too late for the groups.
    application = apps.get_app_config("ssl_certs")
    application.models_module = True
    create_permissions(application, apps=apps, verbosity=0)
    application.models_module = None
    permissions = apps.get_model("auth", "Permission").objects.filter(
        content_type__app_label="ssl_certs"
    )
    viewing = {f"view_{model}" for model in SEEN}
    for name, codenames in {"Viewers": viewing, "Operators": viewing | {"scan_endpoint"}}.items():
        for group in apps.get_model("auth", "Group").objects.filter(name=name):
            group.permissions.add(*permissions.filter(codename__in=codenames))


class Migration(migrations.Migration):
    dependencies = (
        ("ssl_certs", "0004_in_depth"),
        ("alerts", "0002_schedules_and_roles"),
        LATEST_BEAT_MIGRATION,
    )
    operations = (
        migrations.RunPython(carry_days_over, migrations.RunPython.noop),
        migrations.RunPython(add_schedule, migrations.RunPython.noop),
        migrations.RunPython(let_people_see, migrations.RunPython.noop),
    )
