"""Signs of life: a file for the container's health check, a row for the board.

The file costs the health check one stat; an interpreter started for every check would cost more
than the worker itself.
"""

import logging
import socket
import threading
import time
from pathlib import Path
from typing import Any

from celery import bootsteps
from celery.signals import worker_shutdown
from celery.worker.consumer import Consumer
from celery.worker.consumer.tasks import Tasks
from django.conf import settings
from django.db import Error, connection
from django.utils import timezone

INTERVAL = 10.0
"""Seconds between two signs of life."""

FIRST = 1.0
"""Seconds from the start to the first one."""

logger = logging.getLogger(__name__)


def alive_file() -> Path:
    """Return the file whose age the container's health check looks at."""
    return settings.STATE / f"alive-{settings.SERVICE}"


def record() -> None:
    """Write this process's heartbeat row; a database that is down is logged, not raised."""
    from soc.core.models import Heartbeat

    try:
        process = {"service": settings.SERVICE, "instance": socket.gethostname()}
        if not Heartbeat.objects.filter(**process).update(seen_at=timezone.now()):
            Heartbeat.objects.create(**process, seen_at=timezone.now())
    except Error as error:
        logger.warning("The heartbeat was not recorded: %s", error)


def forget() -> None:
    """Delete this process's heartbeat row: who was asked to stop is not missed."""
    from soc.core.models import Heartbeat

    try:
        Heartbeat.objects.filter(service=settings.SERVICE, instance=socket.gethostname()).delete()
    except Error as error:
        logger.warning("The heartbeat was not deleted: %s", error)


@worker_shutdown.connect
def _forget_worker(**_: object) -> None:
    forget()


_recorded_at = float("-inf")


def beat_ticked(scheduler: Any, **_: object) -> None:
    """Show that beat works, active or not; a database that is down must not hold it up."""
    global _recorded_at
    alive_file().touch()
    if scheduler.database_is_up and time.monotonic() - _recorded_at >= INTERVAL:
        record()
        _recorded_at = time.monotonic()


def beat_closed(scheduler: Any, **_: object) -> None:
    """Leave the board."""
    if scheduler.database_is_up:
        forget()


def _record_and_close() -> None:
    try:
        record()
    finally:
        # A connection left open would be inherited by the next child that the pool forks.
        connection.close()


class Liveness(bootsteps.StartStopStep):
    """Shows that a worker's loop runs and that it still consumes its queues."""

    requires = (Tasks,)

    def start(self, c: Consumer) -> None:
        """Begin to give signs of life."""
        self._writer = threading.Thread()
        # Consuming begins with the loop, after this step.
        self._timers = [
            c.timer.call_after(FIRST, self._tick, (c,)),
            c.timer.call_repeatedly(INTERVAL, self._tick, (c,)),
        ]

    def stop(self, c: Consumer) -> None:
        """Stop giving signs of life, so that a lost broker shows."""
        for timer in self._timers:
            timer.cancel()

    def _tick(self, c: Consumer) -> None:
        if not _consumes(c):
            logger.error("This worker no longer consumes its queue; its health check will fail")
            return
        alive_file().touch()
        # A database that hangs must not stop the worker's loop, nor pile up threads.
        if not self._writer.is_alive():
            self._writer = threading.Thread(target=_record_and_close, daemon=True)
            self._writer.start()


def _consumes(c: Consumer) -> bool:
    """Return whether a worker takes what it is there for: tasks, or a stream."""
    if stream := getattr(c.controller, "stream", None):
        return bool(stream.is_consuming)
    queues = c.app.amqp.queues.consume_from
    return bool(queues) and all(c.task_consumer.consuming_from(queue) for queue in queues)
