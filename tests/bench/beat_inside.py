"""The part of the benchmark of beat that runs in containers of the app image.

python3 beat_inside.py beat mariadb|sqlite nothing|amqps SCHEDULER
python3 beat_inside.py fill mariadb|sqlite every|idle COUNT FIRST_DUE
python3 beat_inside.py edit mariadb|sqlite NUMBER
python3 beat_inside.py floor COUNT SECONDS
"""

import json
import os
import signal
import sys
import threading
import time
from array import array
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

RECORDS = Path("/records")
TASK = "soc.ssl_certs.tasks.bench"
QUEUE = "ssl_certs"
PERIOD = 60.0
"""Seconds between two runs of each schedule."""

BATCH = 0.05
"""Seconds for which the floor's publisher collects messages, the coalescing the issue names."""

PROBES = 12
"""Schedules to edit; the first is due at the start."""


def name_of(number: int) -> str:
    """Return a schedule's name; probes have negative numbers."""
    return f"bench {number}"


class Dispatches:
    """What would have been published and when; noting it costs beat about a microsecond."""

    def __init__(self) -> None:
        self._file = (RECORDS / "unpublished").open("ab")
        self._records = array("d")
        self._written = 0

    def add(self, number: int) -> None:
        self._records.extend((time.time(), float(number)))

    def write(self) -> None:
        end = len(self._records) // 2 * 2
        self._records[self._written : end].tofile(self._file)
        self._file.flush()
        self._written = end


class Statements:
    """Counts SQLite's statements; MariaDB counts its own (USER_STATISTICS)."""

    data = 0
    control = 0

    def trace(self, text: str) -> None:
        word = text.lstrip().split(maxsplit=1)[0].upper()
        if word in ("SELECT", "UPDATE", "INSERT", "DELETE", "WITH", "REPLACE"):
            self.data += 1
        elif not word.startswith("--"):
            self.control += 1


def setup(database: str, *, prebuilt: bool = True) -> None:
    """Set Django up as the product does, on SQLite with what the embedded stack sets for it.

    ``prebuilt`` false has our scheduler call each task's ``apply_async``, as stock does.
    """
    os.environ["DJANGO_SETTINGS_MODULE"] = "soc.settings"
    import django

    from soc import settings

    if not prebuilt:
        settings.BEAT = {**settings.BEAT, "PREBUILT": False}
    if database == "sqlite":
        settings.DATABASES = {
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": RECORDS.parent / "sqlite" / "bench.sqlite3",
                "OPTIONS": {
                    "transaction_mode": "IMMEDIATE",
                    "timeout": 20,
                    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
                },
            }
        }
    django.setup()


# --- beat ------------------------------------------------------------------------------------
def run_beat(database: str, publishing: str, scheduler: str) -> None:
    """Run beat as the product's container does, with one task more and a watch on itself."""
    # The kernel drops a container's first process's signals that nothing handles.
    signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    setup(database, prebuilt=publishing == "amqps")
    from django.db.backends.signals import connection_created

    import soc.runtime.celery

    app = soc.runtime.celery.app
    dispatches, statements = Dispatches(), Statements()
    if publishing == "nothing":

        class Unpublished(soc.runtime.celery.Task):
            """Notes that it would be published, and is not."""

            def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> None:
                dispatches.add(kwargs["number"])

        base = Unpublished
    else:
        base = soc.runtime.celery.Task

    @app.task(name=TASK, base=base)
    def bench(number: int) -> None:
        """Do nothing: only its messages matter."""

    if database == "sqlite":

        def trace(connection: Any, **_: object) -> None:
            connection.connection.set_trace_callback(statements.trace)

        connection_created.connect(trace, weak=False)
    threading.Thread(target=_watch, args=(dispatches, statements), daemon=True).start()
    _append(RECORDS / "started", {"at": time.time(), "cpu": time.process_time()})
    app.start(["beat", "--pidfile=", f"--scheduler={scheduler}"])


def _watch(dispatches: Dispatches, statements: Statements) -> None:
    """Answer each SIGUSR1 with a line of what this process has used so far."""
    while True:
        signal.sigwait({signal.SIGUSR1})
        snapshot = {
            "cpu": time.process_time(),
            "at": time.time(),
            "data": statements.data,
            "control": statements.control,
            **_memory(),
        }
        dispatches.write()
        _append(RECORDS / "snapshots", snapshot)


def _memory() -> dict[str, float]:
    """Return the resident memory now and at its highest, in MiB (proc(5))."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "rss": int(lines["VmRSS"].split()[0]) / 1024,
        "peak": int(lines["VmHWM"].split()[0]) / 1024,
    }


def _append(path: Path, line: dict[str, float]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


# --- rows ------------------------------------------------------------------------------------
def fill(database: str, kind: str, count: int, first_due: float) -> None:
    """Replace all schedules: ``count`` to measure and the probes.

    Those of every minute were last run so that they are due from ``first_due`` on, one after the
    other at equal distances.
    """
    setup(database)
    from django.core.management import call_command

    if database == "sqlite":
        call_command("migrate", verbosity=0)
    from django.db import connection
    from django_celery_beat import models

    with connection.cursor() as cursor:
        for model in (
            models.PeriodicTask, models.IntervalSchedule, models.CrontabSchedule,
            models.ClockedSchedule,
        ):  # fmt: skip
            # The ORM would load every row, to tell its receivers of each.
            cursor.execute(f"DELETE FROM {model._meta.db_table}")
    if kind == "every":
        shared = models.IntervalSchedule.objects.create(every=PERIOD, period="seconds")
        timing = [{"interval": shared}]
    else:
        # Hourly, none due in this half hour or the next ten minutes.
        minute = datetime.fromtimestamp(first_due, UTC).minute
        timing = [
            {"crontab": models.CrontabSchedule.objects.create(minute=(minute + ahead) % 60)}
            for ahead in range(20, 50)
        ]
    common = {"task": TASK, "queue": QUEUE, "expire_seconds": 300, "description": "A bench's."}

    def rows() -> Any:
        for number in range(count):
            due = first_due + number * PERIOD / count
            last = due - PERIOD if kind == "every" else first_due
            yield models.PeriodicTask(
                name=name_of(number),
                kwargs=json.dumps({"number": number}),
                last_run_at=datetime.fromtimestamp(last, UTC),
                **timing[number % len(timing)],
                **common,
            )
        for number in range(1, PROBES + 1):
            ahead = timedelta(days=1) if number > 1 else timedelta(0)
            yield models.PeriodicTask(
                name=name_of(-number),
                kwargs=json.dumps({"number": -number}),
                clocked=models.ClockedSchedule.objects.create(
                    clocked_time=datetime.now(UTC) + ahead
                ),
                one_off=True,
                **common,
            )

    models.PeriodicTask.objects.bulk_create(rows(), batch_size=1000)
    models.PeriodicTasks.update_changed()


def edit(database: str, number: int) -> None:
    """Make a probe due now, as a person in the admin does; print when that was committed."""
    setup(database)
    from django_celery_beat.models import ClockedSchedule, PeriodicTask

    task = PeriodicTask.objects.get(name=name_of(-number))
    task.clocked = ClockedSchedule.objects.create(clocked_time=datetime.now(UTC))
    task.save()
    print(time.time())


# --- messages --------------------------------------------------------------------------------
def floor(count: int, seconds: float) -> None:
    """Publish what beat would with py-amqp alone and confirms pipelined; print CPU per message.

    First at beat's pace in batches, then as fast as it goes.
    """
    setup("mariadb")
    import amqp

    from soc import settings
    from soc.runtime.queues import TASK_EXCHANGE

    messages = [_message(number) for number in range(count)]
    host, port = "rabbitmq", 5671
    with amqp.Connection(
        f"{host}:{port}",
        ssl={**settings.CELERY_BROKER_USE_SSL, "server_hostname": host},
        login_method="EXTERNAL",
        heartbeat=10,
    ) as connection:
        channel = connection.channel()
        channel.confirm_select()
        outstanding = 0

        def acknowledge(tag: int, multiple: bool) -> None:
            nonlocal acknowledged
            acknowledged = tag if multiple else acknowledged + 1

        acknowledged = 0
        channel.events["basic_ack"].add(acknowledge)

        def publish(batch: list[Any]) -> None:
            nonlocal outstanding
            for message in batch:
                channel.basic_publish(message, TASK_EXCHANGE, QUEUE, mandatory=True)
            outstanding += len(batch)
            while acknowledged < outstanding:
                connection.drain_events(timeout=10)

        rate = count / PERIOD
        cpu, start, sent = time.process_time(), time.monotonic(), 0
        while (elapsed := time.monotonic() - start) < seconds:
            due = min(int(elapsed * rate), count)
            publish(messages[sent:due])
            sent = due
            time.sleep(BATCH)
        paced = (time.process_time() - cpu) / sent
        cpu = time.process_time()
        fast = messages[:5_000]
        for at in range(0, len(fast), 100):
            publish(fast[at : at + 100])
        print(json.dumps({"paced": paced, "fast": (time.process_time() - cpu) / len(fast)}))


def _message(number: int) -> Any:
    """Return the message that Celery sends for a schedule's run."""
    import amqp
    from kombu.utils.json import dumps

    from soc.runtime.celery import app

    key = f"00000000-0000-4000-8000-{number:012}"
    made = app.amqp.as_task_v2(
        key, TASK, (), {"number": number},
        expires=datetime.now(UTC) + timedelta(seconds=300),
    )  # fmt: skip
    return amqp.Message(
        dumps(made.body),
        application_headers={
            **made.headers,
            "periodic_task_name": name_of(number),
            "celery_beat_task": True,
        },
        content_type="application/json",
        content_encoding="utf-8",
        delivery_mode=2,
        priority=0,
        correlation_id=made.properties["correlation_id"],
        reply_to=made.properties["reply_to"],
    )


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["beat", database, publishing, scheduler]:
            run_beat(database, publishing, scheduler)
        case ["fill", database, kind, count, first_due]:
            fill(database, kind, int(count), float(first_due))
        case ["edit", database, number]:
            edit(database, int(number))
        case ["floor", count, seconds]:
            floor(int(count), float(seconds))
