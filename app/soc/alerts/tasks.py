"""The tasks of the alerts; they run in the shared worker."""

from django.db import transaction
from django.utils import timezone

from soc.alerts import rounds, summary
from soc.celery import app
from soc.notify import reports
from soc.notify.tasks import wake


@app.task
def make_rounds() -> None:
    """Remind, escalate, begin and end silences; twice does no harm."""
    if rounds.run(timezone.now()):
        wake()


@app.task
def send_reports() -> None:
    """Write the reports that subscriptions are due; each is claimed with its mail or not at all."""
    with transaction.atomic():
        mails = sum(summary.send(subscription) for subscription in reports.due(timezone.now()))
    if mails:
        wake()
