from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("ssl_certs", "0010_ends_of_authorities"),
    ]

    operations = [
        migrations.AddField(
            model_name="group",
            name="curve_bits",
            field=models.PositiveIntegerField(
                default=224, help_text="Fewer are a weak key.", verbose_name="curve bits"
            ),
        ),
        migrations.AddField(
            model_name="group",
            name="lifetime_days",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="Certificates that are valid for longer are reported. Empty: where public authorities' rules do not allow it.",
                null=True,
                verbose_name="lifetime (days)",
            ),
        ),
        migrations.AddField(
            model_name="group",
            name="rsa_bits",
            field=models.PositiveIntegerField(
                default=2048, help_text="Fewer are a weak key.", verbose_name="RSA and DSA bits"
            ),
        ),
        migrations.AddField(
            model_name="group",
            name="takes_sha1",
            field=models.BooleanField(
                default=False,
                help_text="Ticked: they are no weakness.",
                verbose_name="SHA-1 signatures",
            ),
        ),
        migrations.AddField(
            model_name="group",
            name="tls_version",
            field=models.CharField(
                choices=[
                    ("TLSv1", "TLSv1"),
                    ("TLSv1.1", "TLSv1.1"),
                    ("TLSv1.2", "TLSv1.2"),
                    ("TLSv1.3", "TLSv1.3"),
                ],
                default="TLSv1.2",
                help_text="A server whose newest version is older is reported.",
                max_length=8,
                verbose_name="TLS version",
            ),
        ),
    ]
