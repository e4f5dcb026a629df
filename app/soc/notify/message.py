"""The message of an outbox row: its header fields, its bodies and its attachment (RFC 5322)."""

from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from enum import IntEnum

from django.conf import settings

from soc.notify import templates
from soc.notify.addresses import as_ascii
from soc.notify.models import OutboundMail

SHORT_TEXT = 2_000
"""Characters of the text that the smallest form of a mail keeps."""

_NOTES = (
    "",
    "The mail relay refuses a mail as large as this one: its attachment {csv_name} was left out."
    " The board has all of it.",
    "The mail relay refuses a mail as large as this one: tables, formatting and the end of a long"
    " text were left out. The board has all of it.",
)


class Form(IntEnum):
    """How much of a mail is sent, the whole first."""

    WHOLE = 0
    WITHOUT_ATTACHMENT = 1
    SHORT = 2


_INTERNATIONAL = SMTP.clone(utf8=True)


def forms(mail: OutboundMail) -> Iterator[Form]:
    """Yield the forms of a mail, each smaller than the one before."""
    yield Form.WHOLE
    if mail.csv:
        yield Form.WITHOUT_ATTACHMENT
    yield Form.SHORT


def octets(mail: OutboundMail, form: Form = Form.WHOLE) -> bytes:
    """Return a mail as it is sent, the same at every try.

    Raises:
        MessageError: an address or another header field cannot be written.
        ValueError: likewise, or a domain is no IDNA 2008 name.
    """
    plain = all(address.isascii() for address in (sender(), *map(as_ascii, mail.recipients)))
    return compose(mail, form).as_bytes(policy=SMTP if plain else _INTERNATIONAL)


def sender() -> str:
    """Return the site's own address, which receives what bounces."""
    return as_ascii(settings.MAIL_FROM)


def compose(mail: OutboundMail, form: Form = Form.WHOLE) -> EmailMessage:
    """Build the message of a form (text and HTML as RFC 2046, 5.1.4).

    Raises:
        MessageError, ValueError: as ``octets``.
    """
    message = EmailMessage()
    for name, value in _fields(mail):
        message[name] = value
    text, html = mail.text, mail.html
    if form:
        note = _NOTES[form].format(csv_name=mail.csv_name)
        text, html = templates.noted(text, html, note)
    if form == Form.SHORT:
        text = templates.cut(text, SHORT_TEXT)
    message.set_content(text, cte=_encoding(text))
    if form != Form.SHORT:
        message.add_alternative(html, subtype="html", cte=_encoding(html))
    if mail.csv and form == Form.WHOLE:
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


def _fields(mail: OutboundMail) -> Iterator[tuple[str, str]]:
    yield "Subject", mail.subject
    yield "From", sender()
    yield "To", ", ".join(map(as_ascii, mail.recipients))
    yield "Date", format_datetime(mail.created_at)
    yield "Message-ID", mail.message_id
    yield "Auto-Submitted", "auto-generated"


def _encoding(body: str) -> str | None:
    """Return the shorter of the transfer encodings of a body (RFC 2045, 6.7 and 6.8).

    The library looks at the first lines only. None leaves plain ASCII as it is.
    """
    octets = len(body.encode())
    foreign = octets - len(body.encode("ascii", "ignore"))
    if not foreign:
        return None
    return "base64" if 6 * foreign > octets else "quoted-printable"
