from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from soc.alerts import rules
from soc.core.schedules import LATEST_BEAT_MIGRATION, Every, Schedule, create
from soc.events.sources import Source, allow

# As late as an event may be and still count: by default the stream calls older ones stale.
BY_EVENT_TIME = {"stale_after": 1800}


def add_defaults(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    apps.get_model("mail_collector", "MailSettings").objects.get_or_create(pk=1)
    allow(apps, Source("SOC Mail Robot", "Application", "checks of mail robots"))
    rules.create(
        apps,
        rules.Default("events", "stream", "Events come from robots"),
        rules.Default("mail_collector", "site-missing", "The robot has a site"),
        # The robots of a site come back one after the other: theirs is not told meanwhile.
        rules.Default(
            *("mail_collector", "site", "The site's robots check mail"),
            {**BY_EVENT_TIME, "good_needed": 3},
        ),
        rules.Default("mail_collector", "bot", "The robot checks mail", BY_EVENT_TIME),
        rules.Default("mail_collector", "check", "The check passes", BY_EVENT_TIME),
        rules.Default("mail_collector", "server", "The mail server works", BY_EVENT_TIME),
        rules.Default("mail_collector", "database", "The mail database works", BY_EVENT_TIME),
        rules.Default("mail_collector", "pair", "Mail arrives between domains", BY_EVENT_TIME),
    )
    create(
        apps,
        Schedule(
            name="watch mail",
            task="soc.mail_collector.tasks.watch",
            when=Every(60),
            expires=60,
            description="Takes in robots' checks of mail; reports silence and what fails.",
        ),
        Schedule(
            name="report sites' mail",
            task="soc.mail_collector.tasks.send_site_reports",
            when=Every(60),
            expires=60,
            description="Mails each site's report at the times of its settings.",
        ),
    )


class Migration(migrations.Migration):
    dependencies = (
        ("mail_collector", "0001_initial"),
        ("alerts", "0002_schedules_and_roles"),
        LATEST_BEAT_MIGRATION,
    )
    operations = (migrations.RunPython(add_defaults, migrations.RunPython.noop),)
