"""The application's tasks: arguments in, one call."""

from django.utils import timezone
from soc.demo import conditions

from soc.notify.tasks import wake
from soc.runtime.celery import app


@app.task
def watch() -> None:
    """Report how the counters are; twice does no harm."""
    if conditions.report(timezone.now()):
        wake()
