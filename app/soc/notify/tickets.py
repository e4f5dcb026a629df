"""Links in messages by which a reader acknowledges what a message is about, without signing in.

A link is a message's key and a secret of its own, which only its reader and the outbox know. It
opens one page about one alert, for a day (docs/decisions/acknowledge-by-link.md).
"""

import re
import secrets
from datetime import timedelta
from uuid import UUID

from django.utils import timezone
from django.utils.crypto import constant_time_compare

from soc.notify.models import OutboundMail

LIFE = timedelta(hours=24)
"""How long a link works, from the moment that its message went out."""

_BYTES = 32
_IN_TEXT = re.compile(r"(/acknowledge/)[\w-]+/[\w-]+/")


class Expired(LookupError):
    """A link is older than ``LIFE``, or its subscription gives none any more."""


def new_secret() -> str:
    """Return a secret of 256 random bits."""
    return secrets.token_urlsafe(_BYTES)


def find(key: str, secret: str) -> OutboundMail:
    """Return the message of a link, with its subscription.

    Raises:
        LookupError: there is none.
        Expired: there is one, and the link does not work any more.
    """
    try:
        number = UUID(key)
    except ValueError:
        raise LookupError("There is no such link.") from None
    mails = OutboundMail.objects.select_related("subscription").defer("text", "html", "csv")
    mail = mails.filter(pk=number).first()
    if mail is None or not mail.ticket or not constant_time_compare(mail.ticket, secret):
        raise LookupError("There is no such link.")
    subscription = mail.subscription
    gives = subscription is not None and subscription.enabled and subscription.acknowledge_links
    if not gives or (mail.sent_at or mail.created_at) + LIFE <= timezone.now():
        raise Expired("This link does not work any more.")
    return mail


def hidden(text: str) -> str:
    """Return a message's text for people who were not sent it: without the links' secrets."""
    return _IN_TEXT.sub(r"\1(not shown)/", text)
