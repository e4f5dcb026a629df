import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("alerts", "0012_one_escalation"),
    ]

    operations = [
        migrations.AlterField(
            model_name="rule",
            name="flap_changes",
            field=models.PositiveSmallIntegerField(
                default=5, help_text="The number of changes that make an alert flapping; 0: never…"
            ),
        ),
        migrations.AlterField(
            model_name="rule",
            name="good_needed",
            field=models.PositiveSmallIntegerField(
                default=1,
                help_text="The number of good reports in a row that resolve it.",
                validators=[
                    django.core.validators.MinValueValidator(1),
                    django.core.validators.MaxValueValidator(20),
                ],
                verbose_name="good reports (k)",
            ),
        ),
        migrations.AlterField(
            model_name="rule",
            name="needed",
            field=models.PositiveSmallIntegerField(
                default=1,
                help_text="The number of bad reports that fire an alert…",
                validators=[
                    django.core.validators.MinValueValidator(1),
                    django.core.validators.MaxValueValidator(20),
                ],
                verbose_name="bad reports (n)",
            ),
        ),
        migrations.AlterField(
            model_name="rule",
            name="window",
            field=models.PositiveSmallIntegerField(
                default=1,
                help_text="…among the last this many.",
                validators=[
                    django.core.validators.MinValueValidator(1),
                    django.core.validators.MaxValueValidator(20),
                ],
                verbose_name="of the last (m)",
            ),
        ),
        migrations.AlterField(
            model_name="subject",
            name="changes",
            field=models.JSONField(default=list, help_text="When it fired and resolved recently."),
        ),
    ]
