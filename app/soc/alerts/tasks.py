"""The tasks of the alerts; they run in the shared worker."""

from django.utils import timezone

from soc.alerts import engine, own, rounds
from soc.notify import reports
from soc.notify.tasks import wake
from soc.runtime.celery import app


@app.task
def make_rounds() -> None:
    """Look at beat, remind, escalate, begin and end silences; twice does no harm."""
    now = timezone.now()
    reported = sum(result.mails for result in engine.report(own.conditions(now)))
    if rounds.run(now) + reported:
        wake()


@app.task
def send_reports() -> None:
    """Write the reports that subscriptions are due; each is claimed with its mail or not at all."""
    if reports.send_due(timezone.now()):
        wake()
