"""The tasks of the mail routes."""

from soc.mail_routes import trips
from soc.notify.tasks import wake
from soc.runtime.celery import app

STEP_EXPIRES = 120
"""Seconds after its time at which a step is dropped; `start_due` finds its trip again."""


@app.task
def start_due() -> int:
    """Begin the round trips that are due, and take up those whose step was lost."""
    keys = trips.start_due()
    for key in keys:
        take_step.apply_async((key,), expires=STEP_EXPIRES)
    return len(keys)


@app.task
def take_step(key: int) -> None:
    """Take a round trip one step further, and ask for the next one in its time."""
    pause, mails = trips.step(key)
    if mails:
        wake()
    if pause is not None:
        take_step.apply_async((key,), countdown=pause, expires=pause + STEP_EXPIRES)
