"""Delivery to the site's mail relay over one kept connection per process (RFC 5321)."""

import smtplib
import ssl
import time
from dataclasses import dataclass
from email.errors import MessageError
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any

from django.conf import settings
from django.utils.encoding import punycode

from soc.core.identity import secret
from soc.notify.models import OutboundMail
from soc.notify.templates import line

TIMEOUT = 15.0
"""Seconds that the relay may take over connecting, or over one reply."""

PATIENCE = 25.0
"""Seconds that it may take over one mail, with the connection to it: with the time that a run
claims mail for, less than the queue's time limit."""

MOST_REFUSALS = 5
"""Refused recipients after which a session is not kept. A relay answers a client that makes only
errors slower and slower, and in the end not at all (Postfix, smtpd_soft_error_limit)."""

CLOSING = 421
"""The reply of a relay that ends a session, whatever it was asked (RFC 5321, 3.8)."""


class RelayDown(Exception):
    """The relay itself cannot be reached or used, whatever the mail."""


class ConnectionLost(Exception):
    """The relay went away in the middle of a mail, which it may or may not have taken."""


@dataclass(frozen=True)
class Reply:
    """What the relay said of a recipient; a code of 0 is our own word on a mail it cannot take."""

    code: int
    text: str

    def __str__(self) -> str:
        return f"The relay answered {self.code} {self.text}" if self.code else self.text

    @property
    def taken(self) -> bool:
        """Whether the mail is now the relay's."""
        return 200 <= self.code < 300

    @property
    def final(self) -> bool:
        """Whether another try would be in vain (RFC 5321, 4.2.1)."""
        return self.taken or self.code == 0 or 500 <= self.code < 600


TAKEN = Reply(250, "OK")


class _Bounded(smtplib.SMTP):
    """A session whose replies must come within one time in all, not only each in its own."""

    def __init__(self, end: float, **options: Any) -> None:
        self.end = end
        self.refusals = 0
        super().__init__(**options)

    def getreply(self) -> tuple[int, bytes]:
        """Wait for a reply as long as there is time left (smtplib's own name)."""
        if self.sock:
            self.sock.settimeout(max(0.1, min(TIMEOUT, self.end - time.monotonic())))
        return super().getreply()


class _BoundedTLS(_Bounded, smtplib.SMTP_SSL):
    """The same over TLS from the first byte."""


_connection: _Bounded | None = None


def deliver(mail: OutboundMail) -> dict[str, Reply]:
    """Hand a mail to the relay for its outstanding recipients; return the reply for each.

    Raises:
        RelayDown: the relay cannot be reached or used; it has heard nothing of the mail.
        ConnectionLost: whether the relay has taken the mail is unknown.
    """
    end = time.monotonic() + PATIENCE
    replies = _converse(mail, end)
    if any(reply.code == CLOSING for reply in replies.values()):
        # A kept session may have seen too many refusals of other mails: they are not this one's.
        close()
        replies = _converse(mail, end)
    if _connection is not None:
        _connection.refusals += sum(not reply.taken for reply in replies.values())
        if _connection.refusals >= MOST_REFUSALS:
            close()
    return replies


def _converse(mail: OutboundMail, end: float) -> dict[str, Reply]:
    relay = _usable_relay(end)
    try:
        recipients = {_ascii(address): address for address in mail.outstanding}
        refused = relay.send_message(compose(mail), _ascii(settings.MAIL_FROM), list(recipients))
    except smtplib.SMTPRecipientsRefused as error:
        # After a 421 those that it did not come to have to wait as well.
        unheard = _of(*list(error.recipients.values())[-1])
        return {
            address: _of(*error.recipients[sent_as]) if sent_as in error.recipients else unheard
            for sent_as, address in recipients.items()
        }
    except smtplib.SMTPResponseException as error:
        close()
        return dict.fromkeys(mail.outstanding, _of(error.smtp_code, error.smtp_error))
    # A local part beyond ASCII is the mail's trouble where the relay lacks SMTPUTF8 (RFC 6531).
    except (smtplib.SMTPNotSupportedError, MessageError, ValueError) as error:
        # The relay may have heard half of it.
        close()
        reply = Reply(0, f"The relay cannot take the mail as it is: {error}")
        return dict.fromkeys(mail.outstanding, reply)
    except (smtplib.SMTPException, OSError) as error:
        close()
        raise ConnectionLost(f"The relay went away in the middle of it: {error}") from error
    return {
        address: _of(*refused[sent_as]) if sent_as in refused else TAKEN
        for sent_as, address in recipients.items()
    }


def probe() -> None:
    """Find out whether the relay can be used, without a mail.

    Raises:
        RelayDown: it cannot.
    """
    _usable_relay(time.monotonic() + PATIENCE)


def _ascii(address: str) -> str:
    """Return an address with its domain as A-labels, which every relay takes (RFC 5891)."""
    local, at, domain = address.rpartition("@")
    return local + at + punycode(domain)


def compose(mail: OutboundMail) -> EmailMessage:
    """Build the message, the same bytes at every try (RFC 5322, text and HTML as RFC 2046)."""
    message = EmailMessage()
    message["Subject"] = mail.subject
    message["From"] = _ascii(settings.MAIL_FROM)
    message["To"] = ", ".join(_ascii(address) for address in mail.recipients)
    message["Date"] = format_datetime(mail.created_at)
    message["Message-ID"] = mail.message_id
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(mail.text, cte=_encoding(mail.text))
    message.add_alternative(mail.html, subtype="html", cte=_encoding(mail.html))
    if mail.csv:
        message.add_attachment(
            mail.csv.encode(),
            maintype="text",
            subtype="csv",
            filename=mail.csv_name,
            params={"charset": "utf-8"},
        )
    for number, part in enumerate(message.walk()):
        if part.is_multipart():
            part.set_boundary(f"={number}={mail.pk.hex}=")
    return message


def _encoding(body: str) -> str | None:
    """Return the shorter of the transfer encodings of a body (RFC 2045, 6.7 and 6.8).

    The library looks at the first lines only. None leaves plain ASCII as it is.
    """
    octets = len(body.encode())
    foreign = octets - len(body.encode("ascii", "ignore"))
    if not foreign:
        return None
    return "base64" if 6 * foreign > octets else "quoted-printable"


def close() -> None:
    """Drop the kept connection; the next delivery opens a new one."""
    global _connection
    if _connection is not None:
        _connection.close()
        _connection = None


def _usable_relay(end: float) -> smtplib.SMTP:
    try:
        return _relay(end)
    # A password that the relay does not take is the site's trouble, not a mail's.
    except (smtplib.SMTPException, OSError) as error:
        raise RelayDown(
            f"The relay {settings.SMTP_HOST}:{settings.SMTP_PORT} cannot be used: {error}"
        ) from error


def _relay(end: float) -> smtplib.SMTP:
    """Return the kept connection if the relay still answers on it, or else a new one."""
    global _connection
    if _connection is not None:
        _connection.end = end
        try:
            if _connection.noop()[0] == 250:
                return _connection
        except (smtplib.SMTPException, OSError):
            pass
        close()
    _connection = _connect(end)
    return _connection


def _connect(end: float) -> _Bounded:
    security = settings.SMTP_SECURITY
    address = {"host": settings.SMTP_HOST, "port": settings.SMTP_PORT, "timeout": TIMEOUT}
    if security == "tls":
        relay: _Bounded = _BoundedTLS(end, **address, context=_tls())
    else:
        relay = _Bounded(end, **address)
    try:
        if security == "starttls":
            relay.starttls(context=_tls())
        if settings.SMTP_USER:
            relay.login(settings.SMTP_USER, secret("smtp_password"))
    except (smtplib.SMTPException, OSError):
        relay.close()
        raise
    return relay


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.load_verify_locations(settings.IDENTITY / "ca.pem")
    return context


def _of(code: int, reply: bytes | str) -> Reply:
    text = reply.decode(errors="replace") if isinstance(reply, bytes) else reply
    return Reply(code, line(text, 300))
