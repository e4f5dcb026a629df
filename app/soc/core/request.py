"""A task's execution as the worker's main process sees it."""

from celery.exceptions import TimeLimitExceeded
from celery.worker import request
from django.db import connection


class Request(request.Request):
    """Celery's request, whose hard time limit leaves a trace.

    The child is killed at the hard limit, so that only the main process is left to record it.
    """

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Record a hard time limit as a failure."""
        super().on_timeout(soft, timeout)
        if not soft:
            self.task.record_failure(TimeLimitExceeded(timeout), self.id, self.argsrepr)
            # The next child that the pool forks must not inherit it.
            connection.close()
