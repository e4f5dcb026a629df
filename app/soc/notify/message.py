"""The message of an outbox row: its header fields, its bodies and its attachment (RFC 5322)."""

import hashlib
from collections.abc import Iterator
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, EmailPolicy
from email.utils import format_datetime
from enum import IntEnum
from typing import Any

from django.conf import settings
from django.utils.text import slugify

from soc.core.severity import Severity
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
_IMPORTANCE = {Severity.CRITICAL: "high", Severity.WARNING: "normal"}


class Form(IntEnum):
    """How much of a mail is sent, the whole first."""

    WHOLE = 0
    WITHOUT_ATTACHMENT = 1
    SHORT = 2


class _Policy(EmailPolicy):
    """Leaves an ASCII subject on one line.

    Filters such as Sieve scripts (RFC 5228) compare it, and not all of them unfold it first. A
    line may have 998 octets (RFC 5322, 2.1.1), which is more than any subject of ours.
    """

    def fold_binary(self, name: str, value: Any) -> bytes:
        """Return a header field as it is sent (the library's own name)."""
        whole = name.lower() == "subject" and str(value).isascii()
        return (_UNFOLDED if whole else SMTP).fold_binary(name, value)


_UNFOLDED = SMTP.clone(max_line_length=998)
_POLICY = _Policy(linesep="\r\n")
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
    return compose(mail, form).as_bytes(policy=_POLICY if plain else _INTERNATIONAL)


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


def _fields(mail: OutboundMail) -> Iterator[tuple[str, str | Address]]:
    name = settings.MAIL_FROM_NAME
    yield "Subject", mail.subject
    yield "From", Address(name, addr_spec=sender()) if name else sender()
    yield "To", ", ".join(map(as_ascii, mail.recipients))
    yield "Date", format_datetime(mail.created_at)
    yield "Message-ID", mail.message_id
    if mail.topic:
        # One ID that no mail has: clients join what refers to it, whichever mail came first, or
        # came at all (RFC 5322, 3.6.4).
        thread = _thread(mail.topic)
        yield "In-Reply-To", thread
        yield "References", thread
    # Nobody's automatic answer is wanted (RFC 3834; Exchange has a field of its own for that).
    yield "Auto-Submitted", "auto-generated"
    yield "X-Auto-Response-Suppress", "All"
    yield "List-Id", _list_id(mail)
    news = Severity.OK if mail.status == "resolved" else Severity(mail.severity)
    yield "Importance", _IMPORTANCE.get(news, "low")
    yield from _ours(mail)


def _ours(mail: OutboundMail) -> Iterator[tuple[str, str]]:
    """Yield the fields that rules of mail programs sort by."""
    yield "X-SOC-Site", settings.SITE["SOC_SITE"]
    yield "X-SOC-Kind", mail.kind
    yield "X-SOC-Severity", str(Severity(mail.severity).label)
    if mail.status:
        yield "X-SOC-Status", mail.status
    if mail.application:
        yield "X-SOC-Application", mail.application
    if mail.topic:
        yield "X-SOC-Topic", mail.topic


def _thread(topic: str) -> str:
    """Return the message ID that all mails about a topic of this site refer to."""
    place = (settings.ALLOWED_HOSTS[0], settings.SITE["SOC_SITE"], topic)
    digest = hashlib.sha256("\0".join(place).encode()).hexdigest()
    return f"<{digest[:32]}.topic@soc.invalid>"


def _list_id(mail: OutboundMail) -> str:
    """Return a name for the subscription's mails (RFC 2919)."""
    label = slugify(mail.subscription.name)[:60] if mail.subscription else ""
    domain = sender().rpartition("@")[2]
    return f"<{label or 'mail'}.{settings.SITE['SOC_SITE']}.soc.{domain}>"


def _encoding(body: str) -> str | None:
    """Return the shorter of the transfer encodings of a body (RFC 2045, 6.7 and 6.8).

    The library looks at the first lines only. None leaves plain ASCII as it is.
    """
    octets = len(body.encode())
    foreign = octets - len(body.encode("ascii", "ignore"))
    if not foreign:
        return None
    return "base64" if 6 * foreign > octets else "quoted-printable"
