from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from soc.alerts import rules
from soc.core import roles
from soc.schedules.schedules import LATEST_BEAT_MIGRATION, Every, Schedule, create

VIEWERS = {"view_mailroute", "view_roundtrip"}
ROLES = {"Viewers": VIEWERS, "Operators": VIEWERS | {"check_mailroute"}}

# Another try follows a failed one after a minute.
TWICE = {"needed": 2, "window": 2}


def add_defaults(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    rules.create(
        apps,
        rules.Default("mail_routes", "submission", "The submission server can be reached", TWICE),
        rules.Default("mail_routes", "refused", "The submission server takes the mail"),
        rules.Default("mail_routes", "mailbox", "The mailbox can be read", TWICE),
        rules.Default("mail_routes", "login", "Both servers take the login"),
        rules.Default("mail_routes", "certificate", "The certificates of both servers are valid"),
        rules.Default("mail_routes", "delivery", "The mail arrives in time"),
        rules.Default("mail_routes", "spam", "The mail is not taken for spam"),
        rules.Default("mail_routes", "full", "The mailbox has room"),
    )
    roles.grant(apps, "mail_routes", ROLES)
    create(
        apps,
        Schedule(
            name="send mail round",
            task="soc.mail_routes.tasks.start_due",
            when=Every(15),
            expires=15,
            description="Begins the round trips of mail routes whose turn it is.",
        ),
    )


class Migration(migrations.Migration):
    dependencies = (
        ("mail_routes", "0001_initial"),
        ("alerts", "0002_schedules_and_roles"),
        *roles.NEEDED_MIGRATIONS,
        LATEST_BEAT_MIGRATION,
    )
    operations = (migrations.RunPython(add_defaults, migrations.RunPython.noop),)
