"""The part of the benchmark of the event stream that runs in containers of the app image.

python3 ingest_inside.py work ours|bare|task; publish COUNT; forget
"""

import hashlib
import os
import resource
import signal
import socket
import ssl
import sys
import threading
import time
from pathlib import Path
from typing import Any

import celery
import django
import stock
from celery import signals

RECORDS = Path("/records")
BATCH = 500


def cpu() -> float:
    """The CPU time in seconds that the processes of this container have used."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        # proc(5): utime and stime, counted from behind the name, which may hold spaces.
        fields = stat.read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


_begun_at = 0.0


def begin() -> None:
    """Tell that we are ready, wait for the word, and begin to count CPU time."""
    global _begun_at
    (RECORDS / f"{socket.gethostname()}.ready").touch()
    while not (RECORDS / "go").exists():
        time.sleep(0.05)
    _begun_at = cpu()


def end(**_: object) -> None:
    """Tell the CPU time since the beginning."""
    (RECORDS / f"{socket.gethostname()}.cpu").write_text(str(cpu() - _begun_at))


# --- Ours ---------------------------------------------------------------------------------------


def work_ours() -> None:
    """Run the product's own worker; only its step waits for the word."""
    django.setup()
    from soc.events import ingest, stream
    from soc.runtime import worker

    start, take, taken = stream.StreamStep.start, ingest.Ingest.take, [0]

    def late(step: Any, controller: Any) -> None:
        begin()
        start(step, controller)

    def noted(self: Any, events: Any) -> Any:
        answer = take(self, events)
        taken[0] += len(events)
        return answer

    def note_memory() -> None:
        with (RECORDS / "memory").open("a") as file:
            while True:
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                print(taken[0], pages * resource.getpagesize() / 2**20, file=file, flush=True)
                time.sleep(0.5)

    stream.StreamStep.start, ingest.Ingest.take = late, noted
    signals.worker_shutting_down.connect(end)
    threading.Thread(target=note_memory, daemon=True).start()
    worker.main(["events"])


# --- The limit ----------------------------------------------------------------------------------


def work_bare() -> None:
    """Consume and insert, and nothing else: no look into a message, no recovery, no heartbeat."""
    sys.path.insert(0, "/library")
    import pika

    django.setup()
    from django.db import connection

    connection.ensure_connection()
    context = ssl.create_default_context(cafile="/run/site/ca.pem")
    context.load_cert_chain("/run/site/cert.pem", "/run/site/key.pem")
    broker = pika.BlockingConnection(
        pika.ConnectionParameters(
            "rabbitmq",
            5671,
            credentials=pika.credentials.ExternalCredentials(),
            ssl_options=pika.SSLOptions(context, "rabbitmq"),
            heartbeat=0,
        )
    )
    channel = broker.channel()
    channel.basic_qos(prefetch_count=2 * BATCH)
    bodies: list[bytes] = []
    row = "(%s, 1, 1, 1, 1, '', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), 0, '', %s)"
    columns = (
        "digest, bot_id, source_id, record_id, event_id, level, at, received_at, stale, problem"
    )

    def flush(tag: int) -> None:
        values = [
            value
            for body in bodies
            for value in (hashlib.blake2b(body, digest_size=16).digest(), body.decode())
        ]
        rows = ", ".join([row] * len(bodies))
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT IGNORE INTO events_event ({columns}, raw) VALUES {rows}", values
            )
        channel.basic_ack(tag, multiple=True)
        bodies.clear()

    signal.signal(signal.SIGTERM, lambda *_: (end(), os._exit(0)))
    begin()
    for method, _, body in channel.consume("events", inactivity_timeout=0.2):
        if body is not None:
            last = method.delivery_tag
            bodies.append(body)
        if bodies and (body is None or len(bodies) >= BATCH):
            flush(last)


# --- A task and a row each ----------------------------------------------------------------------


def storing() -> celery.Celery:
    """Return a stock application with a task that stores an event."""
    app = stock.app()

    @app.task(name="store")
    def store(document: dict[str, Any]) -> None:
        import json

        from django.utils import timezone

        from soc.events.models import Event

        raw = json.dumps(document)
        Event.objects.create(
            digest=hashlib.blake2b(raw.encode(), digest_size=16).digest(),
            bot_id=1,
            source_id=1,
            record_id=document["record"],
            event_id=document["event_id"],
            level=document["level"],
            at=timezone.now(),
            received_at=timezone.now(),
            stale=False,
            raw=raw,
        )

    return app


def work_task() -> None:
    """Run a stock worker whose tasks store an event each."""
    django.setup()
    app = storing()
    with app.connection_for_write() as link:
        # Our models come with our settings, which keep Celery from declaring it.
        link.default_channel.exchange_declare("celeryev", "topic", durable=True, auto_delete=False)

    def note(**_: object) -> None:
        global _begun_at
        _begun_at = cpu()

    signals.worker_ready.connect(note)
    signals.worker_shutting_down.connect(end)
    begin()
    app.worker_main(["worker", "--concurrency=2", "--loglevel=INFO"])


def publish(count: int) -> None:
    """Publish a task per event."""
    store = storing().tasks["store"]
    for number in range(count):
        text = f"Turn {number} of robot-{number % 14}"
        store.delay(
            {"record": number, "event_id": 1, "level": "Information", "message": text + "x" * 900}
        )


def forget() -> None:
    """Delete old events as the product does, once; print how many."""
    django.setup()
    from soc.events import retention

    print(sum(retention.forget_old().values()))


if __name__ == "__main__":
    action, *rest = sys.argv[1:]
    if action == "work":
        {"ours": work_ours, "bare": work_bare, "task": work_task}[rest[0]]()
    elif action == "publish":
        publish(int(rest[0]))
    else:
        forget()
