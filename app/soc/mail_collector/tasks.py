"""The tasks of the mail collector."""

from django.utils import timezone

from soc.mail_collector import collect, conditions
from soc.notify.tasks import wake
from soc.runtime.celery import app


@app.task
def watch() -> None:
    """Take in what robots have told of their mail, and report how it is; twice does no harm."""
    if collect.take_new() + conditions.report(timezone.now()):
        wake()
