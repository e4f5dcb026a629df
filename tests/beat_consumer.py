"""Takes a queue's messages as they come and notes each; runs in a container of the app image.

python3 beat_consumer.py QUEUE FILE

It logs in with the certificate in /run/site and survives a restart of the broker. A line of FILE
has the time of arrival, the schedule's name, the task's id, who sent it and the due time if the
message tells it, divided by tabs.
"""

import contextlib
import os
import signal
import ssl
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import amqp

IDENTITY = Path(os.environ.get("SOC_IDENTITY", "/run/site"))
FLUSH = 0.3
"""Seconds for which a line may stay unwritten."""


def consume(queue: str, file: TextIO) -> None:
    """Note the queue's messages until the connection breaks.

    Raises:
        OSError, amqp.AMQPError: it broke.
    """

    def note(message: Any) -> None:
        headers = message.headers
        fields = (
            f"{time.time():.6f}",
            headers.get("periodic_task_name", ""),
            headers["id"],
            headers["origin"],
            headers.get("periodic_task_due", ""),
        )
        file.write("\t".join(fields) + "\n")

    with amqp.Connection(
        "rabbitmq:5671",
        login_method="EXTERNAL",
        heartbeat=5,
        connect_timeout=3,
        ssl={
            "ca_certs": str(IDENTITY / "ca.pem"),
            "certfile": str(IDENTITY / "cert.pem"),
            "keyfile": str(IDENTITY / "key.pem"),
            "cert_reqs": ssl.CERT_REQUIRED,
            "server_hostname": "rabbitmq",
        },
    ) as connection:
        # Unacknowledged delivery: what a consumer drops would be the test's own fault.
        connection.channel().basic_consume(queue, no_ack=True, callback=note)
        print("consuming", flush=True)
        flushed = time.monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                connection.drain_events(timeout=FLUSH)
            if time.monotonic() - flushed > FLUSH:
                file.flush()
                # Not only when nothing comes: the broker gives up who never says a word.
                connection.heartbeat_tick()
                flushed = time.monotonic()


def main() -> None:
    queue, path = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with Path(path).open("a") as file:
        while True:
            try:
                consume(queue, file)
            except (OSError, amqp.AMQPError) as error:
                print(f"no broker: {error}", flush=True)
                file.flush()
                time.sleep(0.2)


if __name__ == "__main__":
    main()
