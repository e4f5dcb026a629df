"""Bounces: mail that the relay took, and that another server sends back later.

Delivery status notifications (RFC 3464) come to a mailbox, which is read by IMAP. They name the
mail by its Message-ID, in what they return of it (RFC 6522, 3), and each recipient by a field.
"""

import logging
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from email.utils import unquote

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from imapclient import SEEN, IMAPClient

from soc.notify import delivery
from soc.notify.addresses import as_ascii
from soc.notify.models import Bounce, OutboundMail
from soc.notify.templates import line
from soc.provision.identity import secret

TIMEOUT = 5.0
"""Seconds that the mailbox's server may take over one answer: mail waits for as long."""

PATIENCE = 15.0
"""Seconds after which a run reads no more messages; the next one goes on."""

MOST = 50
"""Messages that one run reads."""

LARGEST = 1_000_000
"""Octets of a message that is read at all; what a bounce returns may be cut by its server."""

LONGEST_WORDS = 300

State = OutboundMail.State

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """A recipient that a mail did not reach, by the names it may have, and the server's words."""

    names: tuple[str, ...]
    words: str


def collect() -> int:
    """Read the unread messages of the mailbox, and return how many recipients have bounced.

    A message is marked as read when what it says is stored. Without a mailbox nothing is read.

    Raises:
        IMAPClientError, OSError: the mailbox cannot be opened or read.
    """
    if not settings.BOUNCE_IMAP_HOST:
        return 0
    context = ssl.create_default_context()
    context.load_verify_locations(settings.IDENTITY / "ca.pem")
    with IMAPClient(
        settings.BOUNCE_IMAP_HOST, settings.BOUNCE_IMAP_PORT, timeout=TIMEOUT, ssl_context=context
    ) as mailbox:
        mailbox.login(settings.BOUNCE_IMAP_USER, secret("imap_password"))
        mailbox.select_folder("INBOX")
        return _collect(mailbox)


def _collect(mailbox: IMAPClient) -> int:
    count, end = 0, time.monotonic() + PATIENCE
    for key in mailbox.search(["UNSEEN", "SMALLER", LARGEST])[:MOST]:
        if time.monotonic() > end:
            break
        found = mailbox.fetch([key], ["BODY.PEEK[]"]).get(key)
        # Another reader of the mailbox may have taken it away.
        marked = note(message_from_bytes(found[b"BODY[]"])) if found else 0
        if marked is None:
            # A worker has the mail in hand: the next run reads it again.
            continue
        count += marked
        mailbox.add_flags([key], [SEEN])
    return count


def note(message: Message) -> int | None:
    """Mark the recipients that a message says one of our mails did not reach.

    Returns how many are new, or None if the mail is not settled yet. What is no such message, as
    an automatic answer of a person (RFC 3834), or names no mail of ours, marks nobody.
    """
    failures = list(_failures(message))
    if not failures or not (message_id := _returned_id(message)):
        return 0
    with transaction.atomic():
        rows = OutboundMail.objects.select_for_update().select_related(None)
        mail = rows.filter(message_id=message_id).first()
        if mail is None:
            return 0
        if mail.next_try_at is not None:
            return None
        return sum(_mark(mail, failure) for failure in failures)


def _failures(message: Message) -> Iterator[Failure]:
    """Yield the recipients that a delivery status notification gives up (RFC 3464, 2.3).

    Its own automatic origin says nothing: servers send "auto-replied" with notifications as well.
    """
    kind = message.get_param("report-type")
    if message.get_content_type() != "multipart/report" or str(kind).lower() != "delivery-status":
        return
    for part in message.walk():
        if part.get_content_type() != "message/delivery-status" or not part.is_multipart():
            continue
        # The first block of fields is about the message as a whole.
        for fields in list(part.get_payload())[1:]:
            if str(fields["Action"]).strip().lower() == "failed":
                yield Failure(tuple(_names(fields)), _words(fields))


def _names(fields: Message) -> Iterator[str]:
    """Yield whom a block is about: as we addressed it, and as the last server did."""
    for name in ("Original-Recipient", "Final-Recipient"):
        _, _, address = str(fields[name] or "").partition(";")
        if address.strip():
            yield unquote(address.strip()).casefold()


def _words(fields: Message) -> str:
    _, _, diagnosis = str(fields["Diagnostic-Code"] or "").partition(";")
    words = " ".join(diagnosis.split()) or f"status {fields['Status'] or 'unknown'}"
    return line(words, LONGEST_WORDS)


def _returned_id(message: Message) -> str:
    """Return the Message-ID of what was sent, of which a part holds the whole or the header."""
    for part in message.walk():
        returned: Message | None = None
        if part.get_content_type() == "text/rfc822-headers":
            octets = part.get_payload(decode=True)
            if isinstance(octets, bytes):
                returned = message_from_bytes(octets)
        elif part.get_content_type() == "message/rfc822" and part.is_multipart():
            returned = part.get_payload(0)  # type: ignore[assignment]  # the only one it has
        if returned is not None:
            return str(returned["Message-ID"] or "").strip()
    return ""


def _mark(mail: OutboundMail, failure: Failure) -> int:
    address = _recipient(mail, failure)
    if address is None:
        logger.warning("Mail %s bounced for %s, whom it did not go to", mail.pk, failure.names)
        return 0
    if address not in mail.delivered:
        # The same said twice.
        return 0
    logger.error("Mail %s bounced for %s: %s", mail.pk, address, failure.words)
    delivery.take_back(mail, address, f"It bounced: {failure.words}")
    Bounce.objects.update_or_create(
        address=address,
        defaults={"at": timezone.now(), "words": failure.words, "mail": mail},
    )
    return 1


def _recipient(mail: OutboundMail, failure: Failure) -> str | None:
    """Return which recipient of a mail has failed.

    A server that forwards, and keeps the address it forwarded from to itself, leaves the question
    open where a mail has several.
    """
    for address in mail.recipients:
        if as_ascii(address).casefold() in failure.names:
            return str(address)
    return str(mail.recipients[0]) if len(mail.recipients) == 1 else None
