"""The tasks of the shared queue."""

import logging

from soc.celery import app
from soc.core import housekeeping, queues

logger = logging.getLogger(__name__)


@app.task
def sample_queues() -> None:
    """Record depth and consumers of every queue."""
    queues.sample(app)


@app.task
def keep_house() -> None:
    """Delete what is past its retention."""
    for what, count in housekeeping.run().items():
        logger.info("Housekeeping deleted %d of %s", count, what)
