"""Delivery to the site's mail relay over one kept connection per process (RFC 5321)."""

import smtplib
import ssl
from collections.abc import Mapping
from email.errors import MessageError
from email.message import EmailMessage
from email.utils import format_datetime

from django.conf import settings
from django.utils.encoding import punycode

from soc.core.identity import secret
from soc.notify.models import OutboundMail

TIMEOUT = 15
"""Seconds that the relay may take over connecting, or over one reply."""


class Unavailable(Exception):
    """The mail did not go out now; the relay asks to try later (4xx)."""

    def __init__(self, reason: str, code: int | None = None) -> None:
        super().__init__(reason)
        self.code = code


class RelayDown(Unavailable):
    """The relay itself cannot be reached or used, whatever the mail."""


class Refused(Unavailable):
    """The relay refused the mail for good (5xx), or cannot take it as it is."""


_connection: smtplib.SMTP | None = None


def deliver(mail: OutboundMail) -> str:
    """Hand a mail to the relay; return its words on recipients it refused, if it took others.

    Raises:
        Refused: the relay refuses the mail or all of its recipients for good, or the mail cannot
            be composed as this relay needs it.
        RelayDown: the relay cannot be reached or used.
        Unavailable: the relay wants the mail tried again.
    """
    try:
        relay = _relay()
    # A password that the relay does not take is the site's trouble, not the mail's.
    except (smtplib.SMTPException, OSError) as error:
        raise _down(error) from error
    try:
        message = compose(mail)
        recipients = [_ascii(address) for address in mail.recipients]
        refused = relay.send_message(message, _ascii(settings.MAIL_FROM), recipients)
    except smtplib.SMTPRecipientsRefused as error:
        raise _of_recipients(error) from error
    except smtplib.SMTPResponseException as error:
        close()
        raise _of_reply(error.smtp_code, error.smtp_error) from error
    # A local part beyond ASCII is the mail's trouble where the relay lacks SMTPUTF8 (RFC 6531).
    except (smtplib.SMTPNotSupportedError, MessageError, ValueError) as error:
        # The relay may have heard half of it.
        close()
        raise Refused(f"The relay cannot take the mail as it is: {error}") from error
    except (smtplib.SMTPException, OSError) as error:
        close()
        raise _down(error) from error
    return _words(refused)


def _ascii(address: str) -> str:
    """Return an address with its domain as A-labels, which every relay takes (RFC 5891)."""
    local, at, domain = address.rpartition("@")
    return local + at + punycode(domain)


def _down(error: Exception) -> RelayDown:
    return RelayDown(f"The relay {settings.SMTP_HOST}:{settings.SMTP_PORT} cannot be used: {error}")


def compose(mail: OutboundMail) -> EmailMessage:
    """Build the message, the same bytes at every try (RFC 5322, text and HTML as RFC 2046)."""
    message = EmailMessage()
    message["Subject"] = mail.subject
    message["From"] = _ascii(settings.MAIL_FROM)
    message["To"] = ", ".join(_ascii(address) for address in mail.recipients)
    message["Date"] = format_datetime(mail.created_at)
    message["Message-ID"] = mail.message_id
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(mail.text)
    message.add_alternative(mail.html, subtype="html")
    return message


def close() -> None:
    """Drop the kept connection; the next delivery opens a new one."""
    global _connection
    if _connection is not None:
        _connection.close()
        _connection = None


def _relay() -> smtplib.SMTP:
    """Return the kept connection if the relay still answers on it, or else a new one."""
    global _connection
    if _connection is not None:
        try:
            if _connection.noop()[0] == 250:
                return _connection
        except (smtplib.SMTPException, OSError):
            pass
        close()
    _connection = _connect()
    return _connection


def _connect() -> smtplib.SMTP:
    host, port, security = settings.SMTP_HOST, settings.SMTP_PORT, settings.SMTP_SECURITY
    if security == "tls":
        relay: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=TIMEOUT, context=_tls())
    else:
        relay = smtplib.SMTP(host, port, timeout=TIMEOUT)
        if security == "starttls":
            relay.starttls(context=_tls())
    if settings.SMTP_USER:
        relay.login(settings.SMTP_USER, secret("smtp_password"))
    return relay


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.load_verify_locations(settings.IDENTITY / "ca.pem")
    return context


def _of_reply(code: int, reply: bytes | str) -> Unavailable:
    text = reply.decode(errors="replace") if isinstance(reply, bytes) else reply
    kind = Refused if 500 <= code < 600 else Unavailable
    return kind(f"The relay answered {code} {text}", code)


def _words(replies: Mapping[str, tuple[int, bytes]]) -> str:
    return "; ".join(f"{address}: {_of_reply(*reply)}" for address, reply in replies.items())


def _of_recipients(error: smtplib.SMTPRecipientsRefused) -> Unavailable:
    replies = [_of_reply(*reply) for reply in error.recipients.values()]
    kind = Refused if all(isinstance(reply, Refused) for reply in replies) else Unavailable
    return kind(_words(error.recipients), replies[0].code)
