"""The part of the benchmark of tasks that runs in containers of the app image.

python3 tasks_inside.py publish|work stock|ours|ours_prefetch_4 [COUNT SECONDS]
"""

import os
import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import celery
import stock
from celery import signals

from soc.runtime import queues

RECORDS = Path("/records")
QUEUE = queues.BY_NAME["ssl_certs"]


def ours() -> celery.Celery:
    """The product's own application."""
    from soc.runtime.celery import app

    return app


def add_task(app: celery.Celery) -> Any:
    """Add the one task to measure, under a name that the product routes to a queue."""
    return app.task(name="soc.ssl_certs.tasks.bench")(record)


def record(number: int, seconds: float) -> None:
    """Write the task's number where neither a kill nor another process can spoil it."""
    if seconds:
        time.sleep(seconds)
    os.write(_record_file(os.getpid()), number.to_bytes(4))


@cache
def _record_file(pid: int) -> int:
    return os.open(RECORDS / f"{pid}.record", os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def publish(app: celery.Celery, count: int, seconds: float) -> None:
    """Publish the tasks one by one and print how long that took."""
    task = add_task(app)
    start = time.monotonic()
    for number in range(count):
        task.delay(number, seconds)
    print(time.monotonic() - start)


def work(app: celery.Celery, prefetch: int) -> None:
    """Run a worker until it is told to stop; note its CPU time when it is ready and when told."""
    add_task(app)
    signals.worker_ready.connect(_note_cpu)
    signals.worker_shutting_down.connect(_note_cpu)
    if app.main == "stock":
        # Celery's own documentation starts its workers with INFO, which is our level too.
        app.worker_main(["worker", f"--concurrency={QUEUE.concurrency}", "--loglevel=INFO"])
    else:
        from soc.runtime.worker import main

        queues.BY_NAME[QUEUE.name] = replace(QUEUE, prefetch=prefetch)
        main([QUEUE.name])


def _note_cpu(signal: signals.Signal, **_: object) -> None:
    """Write the CPU time that the processes of this container have used, in seconds."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        # proc(5): utime and stime, counted from behind the name, which may hold spaces.
        fields = stat.read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    (RECORDS / f"{signal.name}.cpu").write_text(str(ticks / os.sysconf("SC_CLK_TCK")))


if __name__ == "__main__":
    action, variant, *numbers = sys.argv[1:]
    app = stock.app() if variant == "stock" else ours()
    if action == "publish":
        publish(app, int(numbers[0]), float(numbers[1]))
    else:
        work(app, prefetch=4 if variant == "ours_prefetch_4" else QUEUE.prefetch)
