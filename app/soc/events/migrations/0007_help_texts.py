import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("events", "0006_dead_letter_rule"),
    ]

    operations = [
        migrations.AlterField(
            model_name="streamsettings",
            name="silent_minutes",
            field=models.PositiveIntegerField(
                default=5,
                help_text="The time without a fresh event from any robot after which there is one alert about the stream, and no single robot is called silent.",
                validators=[
                    django.core.validators.MinValueValidator(1),
                    django.core.validators.MaxValueValidator(1440),
                ],
                verbose_name="silent after (min)",
            ),
        ),
    ]
