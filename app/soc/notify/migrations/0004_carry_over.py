from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models import F

OLD_SUBJECT = "{{ severity|upper }}: {{ title }} ({{ site }})"
NEW_SUBJECT = "{{ status|upper }}: {{ title }} ({{ site }})"


def carry_over(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    """Say of the mails that are there what the new columns say; subjects that nobody has edited
    get the status."""
    mails = apps.get_model("notify", "OutboundMail").objects
    mails.filter(title="").update(title=F("subject"))
    # A claim that was going on may have been sent: it keeps its Message-ID in any case.
    mails.filter(attempts__gt=0).update(alone=True)
    sent = mails.filter(state="sent")
    sent.update(delivered=F("recipients"))
    for mail in sent.exclude(last_error="").iterator():
        refused = {
            one: mail.last_error.partition(f"{one}: ")[2].split("; ")[0]
            for one in mail.recipients
            if f"{one}: " in mail.last_error
        }
        delivered = [one for one in mail.recipients if one not in refused]
        mails.filter(pk=mail.pk).update(delivered=delivered, refused=refused)
    for mail in mails.filter(state="failed").iterator():
        mails.filter(pk=mail.pk).update(refused=dict.fromkeys(mail.recipients, mail.last_error))
    subscriptions = apps.get_model("notify", "Subscription").objects
    subscriptions.filter(subject_template=OLD_SUBJECT).update(subject_template=NEW_SUBJECT)
    apps.get_model("notify", "Relay").objects.get_or_create(pk=1)


class Migration(migrations.Migration):
    dependencies = (("notify", "0003_delivery_in_depth"),)
    operations = (migrations.RunPython(carry_over, migrations.RunPython.noop),)
