"""Starts the worker of one queue with the options that the catalogue gives it.

python -m soc.runtime.worker email
"""

import sys
from typing import Any

from celery.utils.nodenames import default_nodename, host_format

from soc.runtime.celery import app, tasks_of
from soc.runtime.queues import BY_NAME, TASK_QUEUES, Queue

SHOWN_EVERY = 10.0
"""Seconds between two signs of life for Flower, which takes a worker for gone after twice that."""


def main(arguments: list[str]) -> None:
    """Run the worker of the queue named in ``arguments`` until it is asked to stop."""
    if len(arguments) != 1 or arguments[0] not in BY_NAME:
        sys.exit(
            f"usage: python -m soc.runtime.worker QUEUE; a queue is one of {', '.join(BY_NAME)}"
        )
    queue = BY_NAME[arguments[0]]
    load_tasks_of(queue)
    if queue.stream:
        _empty_stream()
    # Not through Celery's command line, which loads every other command, Flower with it.
    worker = app.Worker(
        hostname=host_format(default_nodename(f"{queue.name}@%h")),
        concurrency=queue.concurrency,
        prefetch_multiplier=queue.prefetch,
        soft_time_limit=queue.soft_time_limit,
        time_limit=queue.time_limit,
        heartbeat_interval=SHOWN_EVERY,
        without_gossip=True,
        without_mingle=True,
        **_consumed(queue),
    )
    worker.start()
    sys.exit(worker.exitcode)


def load_tasks_of(queue: Queue) -> None:
    """Load no tasks of other queues: they never run here, and take memory and time to import."""
    app.conf.imports = [tasks_of(name) for name in queue.applications]


def _consumed(queue: Queue) -> dict[str, Any]:
    """Return the options that name the task queues: none where a step empties a stream."""
    if queue.stream:
        # Without tasks there is nothing for a child to do.
        return {"exclude_queues": [other.name for other in TASK_QUEUES], "pool_cls": "solo"}
    return {"queues": [queue.name]}


def _empty_stream() -> None:
    """Add the step to the worker; it needs the applications, which are not loaded before."""
    import django

    django.setup()
    from soc.events.stream import StreamStep

    app.steps["worker"].add(StreamStep)


if __name__ == "__main__":
    main(sys.argv[1:])
