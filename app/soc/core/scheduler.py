"""Beat's scheduler: django-celery-beat's, with a sign of life per tick."""

import time
from typing import Any

from django_celery_beat.schedulers import DatabaseScheduler

from soc.core import liveness


class Scheduler(DatabaseScheduler):
    """Schedules from the database; its health check looks at the age of the last tick."""

    _recorded_at = float("-inf")

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Dispatch what is due and return the seconds until the next tick."""
        wait = super().tick(*args, **kwargs)
        liveness.alive_file().touch()
        if time.monotonic() - self._recorded_at >= liveness.INTERVAL:
            liveness.record()
            self._recorded_at = time.monotonic()
        return wait

    def close(self) -> None:
        """Write what is left to write and leave the board."""
        super().close()
        liveness.forget()
