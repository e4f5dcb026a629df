"""The part of the benchmark of tasks that runs in containers of the app image.

python3 tasks_inside.py work stock|ours
python3 tasks_inside.py publish stock|ours COUNT SECONDS
"""

import os
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import celery
from celery import signals

RECORDS = Path("/records")
IDENTITY = Path("/identity")
CHILDREN = 2


def stock() -> celery.Celery:
    """Celery as it comes; what is set says only how to reach a broker that insists on TLS."""
    return celery.Celery(
        "stock",
        broker="amqps://bench@rabbitmq:5671//",
        broker_login_method="EXTERNAL",
        broker_use_ssl={
            "ca_certs": str(IDENTITY / "ca.pem"),
            "certfile": str(IDENTITY / "cert.pem"),
            "keyfile": str(IDENTITY / "key.pem"),
            "server_hostname": None,
        },
    )


def ours() -> celery.Celery:
    """The product's own application."""
    from soc.celery import app

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


def work(app: celery.Celery) -> None:
    """Run a worker until it is told to stop; note its CPU time when it begins and ends."""
    add_task(app)
    signals.worker_ready.connect(_note_cpu)
    signals.worker_shutting_down.connect(_note_cpu)
    if app.main == "stock":
        app.worker_main(["worker", f"--concurrency={CHILDREN}"])
    else:
        from soc.worker import main

        main(["ssl_certs"])


def _note_cpu(signal: signals.Signal, **_: object) -> None:
    """Write the CPU time that the processes of this container have used, in seconds."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        # proc(5): utime and stime, counted from behind the name, which may hold spaces.
        fields = stat.read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    (RECORDS / f"{signal.name}.cpu").write_text(str(ticks / os.sysconf("SC_CLK_TCK")))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["work", variant]:
            work({"stock": stock, "ours": ours}[variant]())
        case ["publish", variant, count, seconds]:
            publish({"stock": stock, "ours": ours}[variant](), int(count), float(seconds))
