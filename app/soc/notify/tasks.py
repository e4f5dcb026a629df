"""The tasks of the email queue."""

import logging

from kombu.exceptions import OperationalError

from soc.notify import bounces, delivery
from soc.runtime.celery import app

WAKE_UP_EXPIRES = 60
"""Seconds; the schedule comes in any case."""

logger = logging.getLogger(__name__)


@app.task
def send_due_mail() -> int:
    """Send the mail that is due; woken when there is new mail, and by a schedule in any case."""
    if delivery.exceeds_a_batch():
        # Another worker, if there is one, takes a share, and wakes the next in its turn.
        wake()
    return delivery.send_due()


@app.task
def collect_bounces() -> int:
    """Read the mailbox to which mail comes back, and mark the recipients that it names."""
    marked = bounces.collect()
    if marked:
        # Fallback recipients get their copies.
        wake()
    return marked


def wake() -> None:
    """Have new mail sent at once; for workers, after their commit, and never for the web."""
    try:
        send_due_mail.apply_async(expires=WAKE_UP_EXPIRES)
    except OperationalError:
        logger.exception("The broker is away: the mail goes out with the next round")
