from django.db import migrations, models

import soc.common.times


class Migration(migrations.Migration):
    dependencies = (("notify", "0007_acknowledge_links"),)
    operations = (
        migrations.AddField(
            "subscription",
            "report_also_at",
            models.CharField(
                blank=True,
                help_text="Further times of the same day, comma separated, such as those of "
                "shifts: 15:45, 23:45. Each report covers the time since the last one.",
                max_length=200,
                validators=[soc.common.times.validate_times],
            ),
        ),
    )
