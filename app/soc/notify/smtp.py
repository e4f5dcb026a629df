"""Delivery to the site's mail relay over one kept connection per process (RFC 5321)."""

import logging
import re
import smtplib
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.errors import MessageError
from enum import Enum
from itertools import islice

from django.conf import settings

from soc.notify import message
from soc.notify.addresses import as_ascii
from soc.notify.bounded import TIMEOUT, BoundedSMTP, BoundedSMTPS
from soc.notify.models import OutboundMail
from soc.notify.templates import line
from soc.provision.identity import secret

PATIENCE = 25.0
"""Seconds that it may take over one mail, with the connection to it: with the time that a run
claims mail for, less than the queue's time limit."""

MOST_REFUSALS = 5
"""Refused recipients after which a session is not kept. A relay answers a client that makes only
errors slower and slower, and in the end not at all (Postfix, smtpd_soft_error_limit)."""

MOST_ASKED = 5
"""Addresses that a relay is asked about to learn whether it refuses the whole site."""

CLOSING = 421
"""The reply of a relay that ends a session, whatever it was asked (RFC 5321, 3.8)."""

logger = logging.getLogger(__name__)


class RelayDown(Exception):
    """The relay itself cannot be reached or used, whatever the mail.

    ``by_mail``: it says so after a whole mail only, and so only a mail can show that it is cured.
    """

    def __init__(self, words: str, *, by_mail: bool = False) -> None:
        super().__init__(words)
        self.by_mail = by_mail


class ConnectionLost(Exception):
    """The relay went away in the middle of a mail, which it may or may not have taken."""


class SmtpStep(Enum):
    """What a relay replied to."""

    SENDER = "MAIL"
    RECIPIENT = "RCPT"
    CONTENT = "DATA"


@dataclass(frozen=True)
class SmtpReply:
    """What the relay said of a recipient; a code of 0 is our own word on a mail it cannot take."""

    code: int
    text: str
    step: SmtpStep = SmtpStep.CONTENT

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

    @property
    def status(self) -> str:
        """The enhanced status code (RFC 3463), or nothing: not every relay gives one."""
        found = _STATUS.search(self.text)
        return found[0] if found else ""

    @property
    def too_large(self) -> bool:
        """Whether a smaller mail may be taken (RFC 1870, 6; RFC 3463, X.2.3 and X.3.4)."""
        if self.step == SmtpStep.RECIPIENT:
            return False
        by_code = self.code == 552 and self.status != _MAILBOX_FULL
        return by_code or self.status in _TOO_LARGE

    @property
    def refuses_the_sender(self) -> bool:
        """Whether it is the site, and not the mail, that is refused after a whole mail.

        Exchange Online judges who may send as whom after DATA (learn.microsoft.com, "Email
        non-delivery reports"). A bare 5.7.1 is said of spam as well, and is the mail's own.
        """
        if self.step != SmtpStep.CONTENT or not 500 <= self.code < 600:
            return False
        return self.status in (*_ABOUT_THE_SENDER, *_MAY_NOT_SEND)

    @property
    def may_concern_the_site(self) -> bool:
        """Whether it may refuse all that the site sends, whichever the recipient is.

        Postfix says at RCPT what it has against a client, its name or its sender. Exim and
        OpenSMTPD refuse to relay without an enhanced status code.
        """
        if not 500 <= self.code < 600 or self.step == SmtpStep.CONTENT or self.too_large:
            return False
        if self.step == SmtpStep.SENDER or self.status in _ABOUT_THE_SENDER:
            return True
        return not self.status.startswith(_ABOUT_THE_RECIPIENT)


TAKEN = SmtpReply(250, "OK")

_STATUS = re.compile(r"(?<![\d.])[245]\.\d{1,3}\.\d{1,3}(?![\d.])")
_MAILBOX_FULL = "5.2.2"
_TOO_LARGE = ("5.2.3", "5.3.4")
_ABOUT_THE_SENDER = ("5.1.7", "5.1.8")
# Not authenticated, may not send as, blocked tenants and addresses, SendAsDenied.
_MAY_NOT_SEND = ("5.7.57", "5.7.60", "5.7.64", "5.7.705", "5.7.708", "5.7.750", "5.2.252")
_ABOUT_THE_RECIPIENT = ("5.1.", "5.2.", "5.4.", "5.6.")


_connection: BoundedSMTP | None = None


def deliver(mail: OutboundMail, others: Callable[[], Sequence[str]]) -> dict[str, SmtpReply]:
    """Hand a mail to the relay for its outstanding recipients; return the reply for each.

    A mail that is too large goes in a smaller form. ``others`` returns addresses of the site's
    mail: where all recipients are refused, the relay is asked about them too, lest a login that
    it does not take any more be booked on one mail after the other.

    Raises:
        RelayDown: the relay cannot be reached, or refuses the site; it has not taken the mail.
        ConnectionLost: whether the relay has taken the mail is unknown.
    """
    end = time.monotonic() + PATIENCE
    for form in message.forms(mail):
        replies = _converse(mail, form, end)
        if any(reply.code == CLOSING for reply in replies.values()):
            # A kept session may have seen too many refusals of other mails: not this one's.
            close()
            replies = _converse(mail, form, end)
        if not any(reply.too_large for reply in replies.values()):
            break
        logger.warning("Mail %s is too large for the relay (%s)", mail.pk, form.name)
    if refusal := next((r for r in replies.values() if r.refuses_the_sender), None):
        close()
        raise RelayDown(_refuses(refusal), by_mail=True)
    if _all_refused(replies):
        _ask(list(dict.fromkeys((*others(), *mail.outstanding))), end)
    if _connection is not None:
        _connection.refusals += sum(not reply.taken for reply in replies.values())
        if _connection.refusals >= MOST_REFUSALS:
            close()
    return replies


def probe(addresses: Sequence[str]) -> None:
    """Find out whether the relay takes the site's mail for one of some addresses, without a mail.

    Raises:
        RelayDown: it does not.
    """
    _ask(addresses, time.monotonic() + PATIENCE)


def _all_refused(replies: Mapping[str, SmtpReply]) -> bool:
    refused = all(reply.final and not reply.taken for reply in replies.values())
    return refused and any(reply.may_concern_the_site for reply in replies.values())


def _ask(addresses: Iterable[str], end: float) -> None:
    """Begin a mail in a session of its own, and leave it at that (RFC 5321, 4.1.1.5).

    Raises:
        RelayDown: the relay refuses the sender, or all of the addresses for what the site is.
    """
    close()
    relay = _usable_relay(end)
    try:
        reply = _asked(relay, addresses)
    except (smtplib.SMTPException, OSError) as error:
        close()
        raise RelayDown(f"{_name()} cannot be used: {error}") from error
    if reply.code == CLOSING or reply.may_concern_the_site or reply.step == SmtpStep.SENDER:
        close()
        raise RelayDown(_refuses(reply))


def _refuses(reply: SmtpReply) -> str:
    return (
        f"{_name()} refuses all mail of this site at {reply.step.value}: {reply.code} "
        f"{reply.text}. Check SOC_SMTP_USER, its password, SOC_MAIL_FROM and what the relay "
        "lets them send."
    )


def _asked(relay: smtplib.SMTP, addresses: Iterable[str]) -> SmtpReply:
    """Return the relay's reply to the sender if it refuses it, or else to a recipient.

    That is the first that is not refused for what the site is, or else the last.
    """
    sent_as = list(islice(_sendable(addresses), MOST_ASKED))
    reply = _of(*relay.mail(message.sender()), SmtpStep.SENDER)
    if not reply.taken:
        return reply
    reply = TAKEN
    for address in sent_as:
        reply = _of(*relay.rcpt(address), SmtpStep.RECIPIENT)
        if reply.code == CLOSING or not reply.may_concern_the_site:
            break
    relay.rset()
    return reply


def _sendable(addresses: Iterable[str]) -> Iterator[str]:
    """Yield those of some addresses that any relay understands."""
    for address in addresses:
        with suppress(ValueError):
            if (sent_as := as_ascii(address)).isascii():
                yield sent_as


def _converse(mail: OutboundMail, form: message.Form, end: float) -> dict[str, SmtpReply]:
    relay = _usable_relay(end)
    try:
        octets = message.octets(mail, form)
        recipients = {as_ascii(address): address for address in mail.outstanding}
        if (most := _largest(relay)) and len(octets) > most:
            reply = SmtpReply(552, f"5.3.4 [not sent] {len(octets):,} octets of {most:,} at most")
            return dict.fromkeys(mail.outstanding, reply)
        options = _options(relay, recipients)
        refused = relay.sendmail(message.sender(), list(recipients), octets, options)
    except smtplib.SMTPRecipientsRefused as error:
        # After a 421 those that it did not come to have to wait as well.
        unheard = _of(*list(error.recipients.values())[-1], SmtpStep.RECIPIENT)
        return {
            address: _of(*error.recipients[sent_as], SmtpStep.RECIPIENT)
            if sent_as in error.recipients
            else unheard
            for sent_as, address in recipients.items()
        }
    except smtplib.SMTPResponseException as error:
        close()
        step = SmtpStep.SENDER if isinstance(error, smtplib.SMTPSenderRefused) else SmtpStep.CONTENT
        return dict.fromkeys(mail.outstanding, _of(error.smtp_code, error.smtp_error, step))
    # A local part beyond ASCII is the mail's problem where the relay lacks SMTPUTF8 (RFC 6531).
    except (smtplib.SMTPNotSupportedError, MessageError, ValueError) as error:
        # The relay may have heard half of it.
        close()
        reply = SmtpReply(0, f"The relay cannot take the mail as it is: {error}")
        return dict.fromkeys(mail.outstanding, reply)
    except (smtplib.SMTPException, OSError) as error:
        close()
        raise ConnectionLost(f"The relay went away in the middle of it: {error}") from error
    return {
        address: _of(*refused[sent_as], SmtpStep.RECIPIENT) if sent_as in refused else TAKEN
        for sent_as, address in recipients.items()
    }


def _largest(relay: smtplib.SMTP) -> int:
    """Return the octets that the relay takes at most, or 0 if it does not say (RFC 1870, 4)."""
    offered = relay.esmtp_features.get("size", "").strip()
    return int(offered) if offered.isdecimal() else 0


def _options(relay: smtplib.SMTP, recipients: Iterable[str]) -> tuple[str, ...]:
    if all(address.isascii() for address in (message.sender(), *recipients)):
        return ()
    if not relay.has_extn("smtputf8"):
        raise smtplib.SMTPNotSupportedError(
            "an address is beyond ASCII, and the relay does not offer SMTPUTF8"
        )
    return ("SMTPUTF8", "BODY=8BITMIME")


def close() -> None:
    """Drop the kept connection; the next delivery opens a new one."""
    global _connection
    if _connection is not None:
        _connection.close()
        _connection = None


def _usable_relay(end: float) -> smtplib.SMTP:
    try:
        return _relay(end)
    # A login that the relay does not take is the site's problem, not a mail's.
    except (smtplib.SMTPException, OSError) as error:
        raise RelayDown(f"{_name()} cannot be used: {error}") from error


def _name() -> str:
    return f"The relay {settings.SMTP_HOST}:{settings.SMTP_PORT}"


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
    _connection = connect(end)
    return _connection


def connect(end: float) -> BoundedSMTP:
    """Return a session with the relay, greeted and logged in, whose replies must come until `end`.

    `end` is of `time.monotonic`.

    Raises:
        smtplib.SMTPException: the relay refuses.
        OSError: it cannot be reached, has no valid certificate, or there is no password to log in.
    """
    security = settings.SMTP_SECURITY
    address = {
        "host": settings.SMTP_HOST,
        "port": settings.SMTP_PORT,
        "timeout": min(TIMEOUT, max(0.1, end - time.monotonic())),
        "local_hostname": settings.SMTP_HELO or None,
    }
    if security == "tls":
        relay: BoundedSMTP = BoundedSMTPS(end, **address, context=_tls())
    else:
        relay = BoundedSMTP(end, **address)
    try:
        if security == "starttls":
            relay.starttls(context=_tls())
        if settings.SMTP_OAUTH_URL:
            # Nobody else needs the library.
            from soc.notify import xoauth2

            xoauth2.login(relay, settings.SMTP_USER)
        elif settings.SMTP_USER:
            relay.login(settings.SMTP_USER, secret("smtp_password"))
        relay.ehlo_or_helo_if_needed()
    except (smtplib.SMTPException, OSError):
        relay.close()
        raise
    return relay


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.load_verify_locations(settings.IDENTITY / "ca.pem")
    return context


def _of(code: int, reply: bytes | str, step: SmtpStep) -> SmtpReply:
    text = reply.decode(errors="replace") if isinstance(reply, bytes) else reply
    return SmtpReply(code, line(text, 300), step)
