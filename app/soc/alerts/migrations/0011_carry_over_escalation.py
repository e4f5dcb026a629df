from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


def carry_over(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    """Make a step of what each rule has escalated to so far; twice does no harm."""
    step = apps.get_model("alerts", "EscalationStep")
    for rule in apps.get_model("alerts", "Rule").objects.filter(escalate_to__isnull=False):
        step.objects.get_or_create(
            rule=rule, after=max(1, rule.escalate_after), subscription=rule.escalate_to
        )


class Migration(migrations.Migration):
    dependencies = (("alerts", "0010_escalation_steps"),)
    operations = (migrations.RunPython(carry_over, migrations.RunPython.noop),)
