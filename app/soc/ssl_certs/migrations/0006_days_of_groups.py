from django.db import migrations


class Migration(migrations.Migration):
    dependencies = (("ssl_certs", "0005_groups"),)
    operations = (
        migrations.RemoveField(model_name="endpoint", name="critical_days"),
        migrations.RemoveField(model_name="endpoint", name="warning_days"),
    )
