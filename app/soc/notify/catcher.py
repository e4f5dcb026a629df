"""A mail catcher for sites without a relay: it takes every mail and keeps it to be read.

python -m soc.notify.catcher           serve SMTP with STARTTLS
python -m soc.notify.catcher show      print the mails it holds
"""

import asyncio
import mailbox
import os
import signal
import ssl
import sys
from email import message_from_bytes, policy
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session

PORT = 2525


class MailKeeper:
    """An aiosmtpd handler that files each mail in a maildir."""

    def __init__(self, box: mailbox.Maildir) -> None:
        self.box = box

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Keep a mail and the recipients it was for."""
        content = envelope.content
        message = mailbox.MaildirMessage(content if isinstance(content, bytes) else b"")
        message["X-Envelope-To"] = ", ".join(envelope.rcpt_tos)
        self.box.add(message)
        return "250 Kept"


async def _serve(identity: Path, box: mailbox.Maildir, bind: str, port: int) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(identity / "cert.pem", identity / "key.pem")
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    server = await loop.create_server(
        lambda: SMTP(
            MailKeeper(box),
            hostname="catcher",
            tls_context=context,
            require_starttls=True,
            loop=loop,
        ),
        bind,
        port,
    )
    async with server:
        await stopped.wait()


def show(box: mailbox.Maildir) -> None:
    """Print the mails, the oldest first."""
    for key in sorted(box.keys()):
        message = message_from_bytes(box.get_bytes(key), policy=policy.default)
        body = message.get_body(("plain",))
        for header in ("Date", "From", "X-Envelope-To", "Subject", "Message-ID"):
            print(f"{header}: {message[header]}")
        print(f"\n{body.get_content() if body else ''}\n{'-' * 78}")


def main(arguments: list[str]) -> None:
    """Serve until SIGTERM, or show what was caught."""
    box = mailbox.Maildir(Path(os.environ["SOC_STATE"]) / "mail")
    if arguments == ["show"]:
        show(box)
    else:
        identity = Path(os.environ["SOC_IDENTITY"])
        if os.environ["SOC_STACK"] == "embedded":
            # Two sites share the host's ports, and the mail worker goes where the site says.
            bind, port = "127.0.0.1", int(os.environ["SOC_SMTP_PORT"])
        else:
            bind, port = "0.0.0.0", PORT  # noqa: S104
        asyncio.run(_serve(identity, box, bind, port))


if __name__ == "__main__":
    main(sys.argv[1:])
