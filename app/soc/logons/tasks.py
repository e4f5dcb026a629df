"""The tasks of the logons; they run in the mail collector's worker."""

from django.utils import timezone

from soc.logons import conditions
from soc.notify.tasks import wake
from soc.runtime.celery import app


@app.task
def watch() -> None:
    """Report how the logons are; twice does no harm."""
    if conditions.report(timezone.now()):
        wake()
