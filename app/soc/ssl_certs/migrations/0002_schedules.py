from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from soc.core.schedules import LATEST_BEAT_MIGRATION, Every, Schedule, create


def add_schedules(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    create(
        apps,
        Schedule(
            name="scan certificates",
            task="soc.ssl_certs.tasks.scan_due",
            when=Every(30),
            expires=30,
            description="Starts the scans that are due; each endpoint has its own interval.",
        ),
        Schedule(
            name="warn of certificates",
            task="soc.ssl_certs.tasks.warn_subscribers",
            when=Every(60),
            expires=60,
            description="Mails subscribers about certificates that expire or are not valid.",
        ),
    )


class Migration(migrations.Migration):
    dependencies = (("ssl_certs", "0001_initial"), LATEST_BEAT_MIGRATION)
    operations = (migrations.RunPython(add_schedules, migrations.RunPython.noop),)
