from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("alerts", "0011_carry_over_escalation"),
    ]

    operations = [
        migrations.RemoveField(
            model_name="rule",
            name="escalate_after",
        ),
        migrations.RemoveField(
            model_name="rule",
            name="escalate_to",
        ),
    ]
