from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from soc.alerts.rules import Default, create


def add_rules(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    create(
        apps,
        Default(
            "ssl_certs",
            "reachable",
            "The endpoint presents a certificate",
            # A second scan follows a failed one after a minute.
            {"needed": 2, "window": 2},
        ),
        Default("ssl_certs", "certificate", "The certificate is valid and does not expire soon"),
    )


def remove_the_warnings(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    """Remove the schedule whose task the alerts have taken over."""
    periodic_task = apps.get_model("django_celery_beat", "PeriodicTask")
    periodic_task.objects.filter(task="soc.ssl_certs.tasks.warn_subscribers").delete()


class Migration(migrations.Migration):
    dependencies = (("ssl_certs", "0002_schedules"), ("alerts", "0002_schedules_and_roles"))
    operations = (
        migrations.RunPython(add_rules, migrations.RunPython.noop),
        migrations.RunPython(remove_the_warnings, migrations.RunPython.noop),
    )
