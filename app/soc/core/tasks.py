"""The tasks of the shared queue."""

import logging

from soc.core import housekeeping, outside, queues
from soc.runtime.celery import Task, app

logger = logging.getLogger(__name__)


# The broker may have learnt a new password of which this worker has not heard yet.
@app.task(autoretry_for=(*Task.autoretry_for, OSError), max_retries=2)
def sample_queues() -> None:
    """Record depth and consumers of every queue."""
    queues.sample(app)


@app.task
def ping_outside() -> None:
    """Tell the monitor outside that beat, the broker, a worker and the database work."""
    outside.ping()


@app.task
def keep_house() -> None:
    """Delete what is older than its retention period."""
    for what, count in housekeeping.run().items():
        logger.info("Housekeeping deleted %d of %s", count, what)
