"""What tests of mail share: a relay of their own, a clock, and looks into the outbox."""

from __future__ import annotations

import socket
from datetime import datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from django.utils import timezone

from soc.core.severity import Severity
from soc.notify import smtp
from soc.notify.models import OutboundMail, Relay
from soc.notify.templates import Notice

NOTICE = Notice("A title", Severity.WARNING, "A summary.", {"Host": "h<b>"}, "https://localhost/x")


class FakeRelay:
    """An aiosmtpd handler that keeps mails and answers as it is told."""

    def __init__(self) -> None:
        self.mails: list[Envelope] = []
        self.sessions: set[int] = set()
        self.reply = "250 OK"
        self.recipient_reply = "250 OK"
        self.replies: dict[str, str] = {}
        """What it answers to certain recipients."""

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        reply = self.replies.get(address, self.recipient_reply)
        if reply.startswith("250"):
            envelope.rcpt_tos.append(address)
        return reply

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.sessions.add(id(session))
        if self.reply.startswith("250"):
            self.mails.append(envelope)
        return self.reply

    @property
    def messages(self) -> list[EmailMessage]:
        """The mails, parsed."""
        return [message_from_bytes(mail.content, policy=policy.default) for mail in self.mails]  # type: ignore[misc]

    @property
    def subjects(self) -> list[str]:
        return [message["Subject"] for message in self.messages]


class Outage:
    """A relay that can be taken away and come back."""

    def __init__(self, settings: Any) -> None:
        self.handler = FakeRelay()
        self.port = free_port()
        settings.SMTP_HOST, settings.SMTP_PORT = "127.0.0.1", self.port
        settings.SMTP_SECURITY = "none"
        self.controller: Controller | None = None

    def start(self) -> None:
        self.controller = Controller(
            self.handler, hostname="127.0.0.1", port=self.port, enable_SMTPUTF8=False
        )
        self.controller.start()

    def stop(self) -> None:
        smtp.close()
        if self.controller:
            self.controller.stop()
        self.controller = None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def move(self, **by: float) -> datetime:
        self.now += timedelta(**by)
        return self.now


def states() -> dict[str, int]:
    """Return how many mails are in each state."""
    found: dict[str, int] = {}
    for state in OutboundMail.objects.values_list("state", flat=True):
        found[state] = found.get(state, 0) + 1
    return found


def make_due() -> None:
    OutboundMail.objects.filter(next_try_at__isnull=False).update(next_try_at=timezone.now())


def relay_row() -> Relay:
    return Relay.objects.get()
