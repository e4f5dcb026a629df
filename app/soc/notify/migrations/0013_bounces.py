import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = (("notify", "0012_relay_probed_by_mail"),)

    operations = (
        migrations.CreateModel(
            "Bounce",
            [
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("address", models.CharField(max_length=254, unique=True)),
                ("at", models.DateTimeField("last", db_index=True)),
                ("words", models.CharField("why", max_length=300)),
                (
                    "mail",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        to="notify.outboundmail",
                    ),
                ),
            ],
            {"ordering": ("-at",)},
        ),
    )
