"""Starts Flower over https with a password, its metrics behind the same sign-in.

Flower's own ``/metrics`` answers anybody; here it asks for the password like every other page.
"""

import os
import sys

from django.conf import settings
from flower.views.monitor import Metrics
from tornado.web import authenticated

from soc.celery import app
from soc.core.identity import secret

MAX_TASKS = 5_000
"""Tasks that Flower keeps in memory; its own limit of 100,000 costs hundreds of MB."""


def _forget_earlier_receivers() -> None:
    """Unbind and empty the queues of Flowers that ended: files expire no message of theirs."""
    (settings.STATE / "broker-control" / "celeryev.exchange").unlink(missing_ok=True)
    for message in (settings.STATE / "broker").glob("*.celeryev.*.msg"):
        message.unlink(missing_ok=True)


def main() -> None:
    """Serve Flower until SIGTERM."""
    Metrics.get = authenticated(Metrics.get)
    if settings.EMBEDDED:
        _forget_earlier_receivers()
    options = [
        f"--port={settings.FLOWER_PORT}",
        f"--address={settings.FLOWER_ADDRESS}",
        f"--certfile={settings.IDENTITY / 'cert.pem'}",
        f"--keyfile={settings.IDENTITY / 'key.pem'}",
        f"--max_tasks={MAX_TASKS}",
        "--purge_offline_workers=600",
    ]
    # Not on the command line, where everyone on the host could read them.
    os.environ["FLOWER_BASIC_AUTH"] = f"admin:{secret('password')}"
    if not settings.EMBEDDED:
        monitor = f"monitor:{secret('monitor_password')}"
        os.environ["FLOWER_BROKER_API"] = f"https://{monitor}@rabbitmq:15671/api/"
        # Flower's HTTP client knows no other way to trust a private CA.
        os.environ["SSL_CERT_FILE"] = str(settings.IDENTITY / "ca.pem")
    app.start(["flower", *options])


if __name__ == "__main__":
    sys.exit(main())
