from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = (("notify", "0011_handover"),)

    operations = (
        migrations.AddField(
            "relay",
            "probed_by_mail",
            models.BooleanField(
                default=False,
                help_text="It refuses the site after DATA: a mail tries whether it is back.",
            ),
        ),
    )
