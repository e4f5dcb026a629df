"""The tasks of the cron jobs; they run in the shared worker."""

from django.utils import timezone

from soc.cronjobs import conditions
from soc.notify.tasks import wake
from soc.runtime.celery import app


@app.task
def watch() -> None:
    """Report the jobs that have not run; twice does no harm."""
    if conditions.watch(timezone.now()):
        wake()
