"""The tasks of the email queue."""

from soc.celery import app
from soc.notify import outbox


@app.task
def send_due_mail() -> int:
    """Send the mail that is due; woken when there is new mail, and by a schedule in any case."""
    return outbox.send_due()
