import django.core.validators
from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

LONGEST = 31 * 24 * 60


def shorten(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    """Shorten intervals that no date can be reckoned with."""
    endpoints = apps.get_model("ssl_certs", "Endpoint").objects
    endpoints.filter(interval_minutes__gt=LONGEST).update(interval_minutes=LONGEST)


class Migration(migrations.Migration):
    dependencies = (("ssl_certs", "0006_days_of_groups"),)
    operations = (
        migrations.AlterField(
            "endpoint",
            "interval_minutes",
            models.PositiveIntegerField(
                default=60,
                help_text="Minutes between two scans; 44,640 (31 days) at most.",
                validators=[
                    django.core.validators.MinValueValidator(1),
                    django.core.validators.MaxValueValidator(LONGEST),
                ],
            ),
        ),
        migrations.RunPython(shorten, migrations.RunPython.noop),
    )
