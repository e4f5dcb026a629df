"""The part of the benchmark of mail that runs in containers of the app image.

python3 mail_inside.py sink | enqueue COUNT | publish COUNT | work
"""

import asyncio
import os
import ssl
import sys
import time
from pathlib import Path

import celery
from aiosmtpd.smtp import SMTP, Envelope, Session
from tasks_inside import IDENTITY, stock

RECORD = Path("/records/received")
PORT = 2525
LATENCY = 0.2
"""Seconds from the end of a message to the sink's reply."""

SENDER, RECIPIENT = "soc@health.internal", "operations@health.internal"
FACTS = {"Endpoint": "www.soc.internal:443", "Issuer": "CN=An authority", "Days left": "21"}
SUMMARY = "The certificate ends soon."


class Counting:
    """An aiosmtpd handler that takes its time and notes when it has replied to which message."""

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        await asyncio.sleep(LATENCY)
        head = bytes(envelope.content or b"").partition(b"\r\n\r\n")[0]
        (message_id,) = (
            line.partition(b":")[2].strip()
            for line in head.replace(b"\r\n ", b" ").splitlines()
            if line.lower().startswith(b"message-id:")
        )
        with RECORD.open("ab") as record:
            record.write(b"%f %s\n" % (time.time(), message_id))
        return "250 Counted"


async def sink() -> None:
    """Serve SMTP with STARTTLS to any number of clients at a time."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(IDENTITY / "cert.pem", IDENTITY / "key.pem")
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(Counting(), tls_context=context, require_starttls=True, loop=loop),
        "0.0.0.0",
        PORT,
    )
    await server.serve_forever()


def enqueue(count: int) -> None:
    """Write mails to the product's outbox and wake a worker, as an application does."""
    import django

    django.setup()
    from django.db import transaction

    from soc.core.severity import Severity
    from soc.notify import outbox, tasks
    from soc.notify.models import Subscription
    from soc.notify.templates import Notice

    # Each mail is to go out by itself, not in a digest.
    subscription = Subscription.objects.create(
        name=f"bench {time.time()}", recipients=RECIPIENT, storm_limit=30_000
    )
    with transaction.atomic():
        for number in range(count):
            notice = Notice(f"Certificate {number}", Severity.WARNING, SUMMARY, FACTS)
            outbox.enqueue(notice, f"bench {subscription.pk} {number}", to=[subscription])
    tasks.wake()


def plain() -> celery.Celery:
    """What a Django project starts with: Celery and Django as they come, a task per mail."""
    from django.conf import settings
    from django.core.mail import send_mail

    # Not the product's.
    del os.environ["DJANGO_SETTINGS_MODULE"]
    settings.configure(
        EMAIL_HOST="sink",
        EMAIL_PORT=PORT,
        EMAIL_USE_TLS=True,
        DEFAULT_FROM_EMAIL=SENDER,
        USE_TZ=True,
    )
    app = stock()
    facts = "".join(f"{name}: {value}\n" for name, value in FACTS.items())
    cells = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in FACTS.items())

    @app.task(name="send")
    def send(number: int) -> None:
        send_mail(
            f"WARNING: Certificate {number}",
            f"{SUMMARY}\n\n{facts}",
            None,
            [RECIPIENT],
            html_message=f"<p>{SUMMARY}</p><table>{cells}</table>",
        )

    return app


def publish(count: int) -> None:
    """Publish a task per mail."""
    send = plain().tasks["send"]
    for number in range(count):
        send.delay(number)


def work() -> None:
    """Run a worker of the plain application, as many mails at a time as the product's."""
    from soc.runtime import queues

    concurrency = queues.BY_NAME["email"].concurrency
    plain().worker_main(["worker", f"--concurrency={concurrency}", "--loglevel=INFO"])


if __name__ == "__main__":
    action, *numbers = sys.argv[1:]
    if action == "sink":
        os.umask(0o022)
        asyncio.run(sink())
    elif action == "work":
        work()
    else:
        {"enqueue": enqueue, "publish": publish}[action](int(numbers[0]))
