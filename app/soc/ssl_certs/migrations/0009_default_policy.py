import django.db.models.deletion
from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

NAMES = ("default", "default policy", "default (of all others)")


def add_default_policy(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    """Add a policy with the numbers that held for endpoints without one."""
    policies = apps.get_model("ssl_certs", "Group").objects
    if policies.filter(is_default=True).exists():
        return
    taken = set(policies.values_list("name", flat=True))
    name = next((name for name in NAMES if name not in taken), None)
    if name:
        policies.create(
            name=name, is_default=True,
            warning_days=30, warning_share=33, error_days=7, error_share=10,
            critical_days=2, critical_share=5,
        )  # fmt: skip


class Migration(migrations.Migration):
    dependencies = (("ssl_certs", "0008_strength"),)
    operations = (
        migrations.AlterModelOptions(
            "group",
            {
                "ordering": ("name",),
                "verbose_name": "expiry policy",
                "verbose_name_plural": "expiry policies",
            },
        ),
        migrations.AddField(
            "group",
            "is_default",
            models.BooleanField(
                "default",
                default=False,
                help_text="Holds for all endpoints that have no policy of their own; one policy "
                "does.",
            ),
        ),
        migrations.AlterField(
            "endpoint",
            "group",
            models.ForeignKey(
                blank=True,
                help_text="When it is warned of; empty: the default policy.",
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                to="ssl_certs.group",
                verbose_name="expiry policy",
            ),
        ),
        migrations.RunPython(add_default_policy, migrations.RunPython.noop),
    )
