"""Starts the worker of one queue with the options that the catalogue gives it.

python -m soc.worker email
"""

import sys

from soc.celery import app
from soc.queues import BY_NAME


def main(arguments: list[str]) -> None:
    """Run the worker of the queue named in ``arguments`` until it is told to stop."""
    if len(arguments) != 1 or arguments[0] not in BY_NAME:
        sys.exit(f"usage: python -m soc.worker QUEUE; a queue is one of {', '.join(BY_NAME)}")
    queue = BY_NAME[arguments[0]]
    app.worker_main(
        [
            "worker",
            f"--queues={queue.name}",
            f"--hostname={queue.name}@%h",
            f"--concurrency={queue.concurrency}",
            f"--prefetch-multiplier={queue.prefetch}",
            f"--soft-time-limit={queue.soft_time_limit}",
            f"--time-limit={queue.time_limit}",
            "--without-gossip",
            "--without-mingle",
        ]
    )


if __name__ == "__main__":
    main(sys.argv[1:])
