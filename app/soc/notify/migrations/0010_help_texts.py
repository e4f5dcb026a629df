import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("notify", "0009_rota"),
    ]

    operations = [
        migrations.AlterField(
            model_name="subscription",
            name="digest_minutes",
            field=models.PositiveSmallIntegerField(
                default=0,
                help_text="Gather notices for this many minutes and send them as one digest; 0: at once.",
                validators=[django.core.validators.MaxValueValidator(1440)],
            ),
        ),
    ]
