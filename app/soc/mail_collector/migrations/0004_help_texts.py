import datetime

import django.core.validators
from django.db import migrations, models

import soc.mail_collector.mailboxes


class Migration(migrations.Migration):
    dependencies = [
        ("mail_collector", "0003_no_report_schedule"),
    ]

    operations = [
        migrations.AlterField(
            model_name="mailsettings",
            name="bot_warning",
            field=models.DurationField(
                default=datetime.timedelta(seconds=7200),
                help_text="The silence of a robot that is a warning (h:mm:ss).",
                validators=[
                    django.core.validators.MinValueValidator(datetime.timedelta(seconds=1))
                ],
            ),
        ),
        migrations.AlterField(
            model_name="mailsettings",
            name="mailbox_pattern",
            field=models.CharField(
                default="{server}-{database}-{name}@{domain}",
                help_text="How a mailbox's name has its server and its database: plain text with {server}, {database}, {name} and {domain}.",
                max_length=200,
                validators=[soc.mail_collector.mailboxes.validate],
            ),
        ),
    ]
