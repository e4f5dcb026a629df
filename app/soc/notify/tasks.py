"""The tasks of the email queue."""

from soc.celery import app
from soc.notify import outbox

WAKE_UP_EXPIRES = 60
"""Seconds; the schedule comes in any case."""


@app.task
def send_due_mail() -> int:
    """Send the mail that is due; woken when there is new mail, and by a schedule in any case."""
    if outbox.exceeds_a_batch():
        # Another worker, if there is one, takes a share, and wakes the next in its turn.
        send_due_mail.apply_async(expires=WAKE_UP_EXPIRES)
    return outbox.send_due()
