import datetime

import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("logons", "0002_rules_and_schedules"),
    ]

    operations = [
        migrations.AlterField(
            model_name="logonsettings",
            name="cluster",
            field=models.PositiveSmallIntegerField(
                default=5,
                help_text="The number of failures of any robots that are a cluster…",
                validators=[django.core.validators.MinValueValidator(2)],
            ),
        ),
        migrations.AlterField(
            model_name="logonsettings",
            name="failures",
            field=models.PositiveSmallIntegerField(
                default=2,
                help_text="The number of failed logons of a robot that are a problem…",
                validators=[django.core.validators.MinValueValidator(1)],
            ),
        ),
        migrations.AlterField(
            model_name="logonsettings",
            name="silent_after",
            field=models.DurationField(
                default=datetime.timedelta(seconds=600),
                help_text="The timeout after which a robot that sends nothing is silent (h:mm:ss).",
                validators=[
                    django.core.validators.MinValueValidator(datetime.timedelta(seconds=1))
                ],
            ),
        ),
    ]
