"""Starts the worker of one queue with the options that the catalogue gives it.

python -m soc.worker email
"""

import sys

from soc.celery import app
from soc.queues import BY_NAME, TASK_QUEUES, Queue


def main(arguments: list[str]) -> None:
    """Run the worker of the queue named in ``arguments`` until it is told to stop."""
    if len(arguments) != 1 or arguments[0] not in BY_NAME:
        sys.exit(f"usage: python -m soc.worker QUEUE; a queue is one of {', '.join(BY_NAME)}")
    queue = BY_NAME[arguments[0]]
    app.worker_main(
        [
            "worker",
            _consumed(queue),
            f"--hostname={queue.name}@%h",
            f"--concurrency={queue.concurrency}",
            f"--prefetch-multiplier={queue.prefetch}",
            f"--soft-time-limit={queue.soft_time_limit}",
            f"--time-limit={queue.time_limit}",
            "--without-gossip",
            "--without-mingle",
        ]
    )


def _consumed(queue: Queue) -> str:
    """Return the option that names the task queues: none where a bootstep empties a stream."""
    if queue.stream:
        return "--exclude-queues=" + ",".join(other.name for other in TASK_QUEUES)
    return f"--queues={queue.name}"


if __name__ == "__main__":
    main(sys.argv[1:])
