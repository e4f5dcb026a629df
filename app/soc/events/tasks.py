"""The tasks of the event stream, which run on the shared queue."""

import logging

from soc.events import dead, retention
from soc.runtime.celery import app

logger = logging.getLogger(__name__)


@app.task
def forget_old() -> None:
    """Delete events, and what was made of them, past their time."""
    for what, count in retention.forget_old().items():
        if count:
            logger.info("%d of %s were too old and are deleted", count, what)


@app.task
def cap_dead_letters() -> None:
    """Delete the oldest dead letters of events beyond their cap."""
    if dropped := dead.drop_excess():
        logger.warning(
            "%d dead letters of events are deleted: more than %d waited",
            dropped.total(),
            dead.MOST_WAITING,
        )
