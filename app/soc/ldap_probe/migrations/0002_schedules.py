from django.apps.registry import Apps
from django.contrib.auth.management import create_permissions
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from soc.alerts.rules import Default
from soc.alerts.rules import create as create_rules
from soc.core.schedules import LATEST_BEAT_MIGRATION, Cron, Every, Schedule, create

VIEWERS = {"view_directoryserver", "view_proberesult"}
ROLES = {"Viewers": VIEWERS, "Operators": VIEWERS | {"probe_directoryserver"}}

TWICE = {"needed": 2, "window": 2}

STANDARD = {
    "connect": (0.25, 1, 3),
    "tls": (0.5, 1.5, 3),
    "bind": (0.5, 1.5, 4),
    "search": (0.5, 1.5, 4),
    "total": (1, 3, 8),
}


def add_schedules(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    create(
        apps,
        Schedule(
            name="probe directory servers",
            task="soc.ldap_probe.tasks.probe_due",
            when=Every(10),
            expires=10,
            description="Probes the servers whose turn it is; each has its place in its interval.",
        ),
        Schedule(
            name="report on directory servers",
            task="soc.ldap_probe.tasks.send_reports",
            when=Cron(minute="30", hour="6"),
            expires=6 * 3600,
            description="Mails the report to subscriptions with a daily or a weekly report.",
        ),
    )


def add_rules(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    create_rules(
        apps,
        # A second probe follows a failed one after a minute.
        Default("ldap_probe", "answers", "The server answers", TWICE),
        Default("ldap_probe", "certificate", "The server's certificate is right", TWICE),
        Default("ldap_probe", "search", "The search finds something", TWICE),
        Default("ldap_probe", "speed", "The server is as fast as its profile asks", TWICE),
        Default("ldap_probe", "credential", "The servers take the credential", TWICE),
        Default("ldap_probe", "replication", "The server's copy is up to date", TWICE),
    )


def add_profile(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    profile, new = apps.get_model("ldap_probe", "Profile").objects.get_or_create(
        name="standard", defaults={"lag_warning": 300, "lag_error": 900, "lag_alert": 3600}
    )
    if not new:
        return
    limit = apps.get_model("ldap_probe", "Limit")
    limit.objects.bulk_create(
        limit(profile=profile, phase=phase, warning=warning, error=error, alert=alert)
        for phase, (warning, error, alert) in STANDARD.items()
    )


def add_permissions(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    # Django creates permissions after the last migration, which is too late for the groups.
    application = apps.get_app_config("ldap_probe")
    application.models_module = True
    create_permissions(application, apps=apps, verbosity=0)
    application.models_module = None
    permissions = apps.get_model("auth", "Permission").objects.filter(
        content_type__app_label="ldap_probe"
    )
    for name, codenames in ROLES.items():
        for group in apps.get_model("auth", "Group").objects.filter(name=name):
            group.permissions.add(*permissions.filter(codename__in=codenames))


class Migration(migrations.Migration):
    dependencies = (
        ("ldap_probe", "0001_initial"),
        ("alerts", "0002_schedules_and_roles"),
        LATEST_BEAT_MIGRATION,
    )
    operations = (
        migrations.RunPython(add_schedules, migrations.RunPython.noop),
        migrations.RunPython(add_rules, migrations.RunPython.noop),
        migrations.RunPython(add_profile, migrations.RunPython.noop),
        migrations.RunPython(add_permissions, migrations.RunPython.noop),
    )
