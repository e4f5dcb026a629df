from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from soc.alerts import rules
from soc.core.schedules import LATEST_BEAT_MIGRATION, Every, Schedule, create
from soc.events.sources import Source, allow

# As late as an event may be and still count: by default the stream calls older ones stale.
BY_EVENT_TIME = {"stale_after": 1800}


def add_defaults(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    apps.get_model("logons", "LogonSettings").objects.get_or_create(pk=1)
    allow(apps, Source("ControlUp Logon Monitor", "Application", "logons at published desktops"))
    rules.create(
        apps,
        # The robots of a site come back one after the other: theirs is not told meanwhile.
        rules.Default(
            "logons", "site", "The site's robots log on", {**BY_EVENT_TIME, "good_needed": 3}
        ),
        rules.Default("logons", "bot", "The robot logs on", BY_EVENT_TIME),
        rules.Default("logons", "failures", "The robot's logons succeed", BY_EVENT_TIME),
        rules.Default("logons", "slow", "The robot's logons are quick", BY_EVENT_TIME),
        rules.Default(
            *("logons", "cluster", "Logons do not fail in numbers"),
            # Its brake is in the settings: so many an hour.
            {**BY_EVENT_TIME, "flap_changes": 0},
        ),
    )
    create(
        apps,
        Schedule(
            name="watch logons",
            task="soc.logons.tasks.watch",
            when=Every(60),
            expires=60,
            description="Reports robots that log on no more, in vain, or slowly.",
        ),
    )


class Migration(migrations.Migration):
    dependencies = (
        ("logons", "0001_initial"),
        ("alerts", "0002_schedules_and_roles"),
        LATEST_BEAT_MIGRATION,
    )
    operations = (migrations.RunPython(add_defaults, migrations.RunPython.noop),)
