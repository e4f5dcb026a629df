import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = (("events", "0010_shippers"),)
    operations = (
        migrations.AddField(
            model_name="bot",
            name="expected_minutes",
            field=models.PositiveIntegerField(
                blank=True,
                help_text=(
                    "How often it checks something: it is silent after twice that, also before its "
                    "first event. Empty: the settings' limits hold from its first event on."
                ),
                null=True,
                validators=[
                    django.core.validators.MinValueValidator(1),
                    django.core.validators.MaxValueValidator(1440),
                ],
                verbose_name="expected every (min)",
            ),
        ),
    )
