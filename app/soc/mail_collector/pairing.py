"""Pairs the sending of a mail with its receipt, whichever is heard of first, or twice."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from soc.mail_collector.models import MailEvent


@dataclass(frozen=True)
class Leg:
    """What is known of one mail on its way to one mailbox.

    ``fresh_at`` is when it was received, if that was heard of in time.
    """

    key: bytes
    wm_id: str
    sender: str
    recipient: str
    sent_at: datetime | None = None
    received_at: datetime | None = None
    fresh_at: datetime | None = None

    def __or__(self, other: "Leg") -> "Leg":
        """Return what both know; in which order, and how often, makes no difference."""
        return replace(
            self,
            sent_at=_first(self.sent_at, other.sent_at),
            received_at=_first(self.received_at, other.received_at),
            fresh_at=_first(self.fresh_at, other.fresh_at),
        )


def _first(one: datetime | None, other: datetime | None) -> datetime | None:
    return min((at for at in (one, other) if at is not None), default=None)


def legs(event: MailEvent) -> Iterator[Leg]:
    """Yield what an event reports of mails on their way; a check that failed says nothing."""
    if not event.passed or not event.sender or not (event.wm_id or event.message_id):
        return
    sent_at = received_at = fresh_at = None
    match event.kind:
        case MailEvent.Kind.SEND:
            sent_at = event.at
        case MailEvent.Kind.RECEIVE:
            received_at, fresh_at = event.at, None if event.stale else event.at
        case _:
            return
    for recipient in event.recipients:
        key = key_of(event.wm_id, event.message_id, event.sender, recipient)
        yield Leg(key, event.wm_id, event.sender, recipient, sent_at, received_at, fresh_at)


def merged(found: Iterable[Leg]) -> dict[bytes, Leg]:
    """Return what is known of each mail, by its key."""
    known: dict[bytes, Leg] = {}
    for leg in found:
        known[leg.key] = known[leg.key] | leg if leg.key in known else leg
    return known


def key_of(wm_id: str, message_id: str, sender: str, recipient: str) -> bytes:
    """Return what identifies a mail to one mailbox, in 16 bytes."""
    identity = "\0".join((wm_id, message_id, sender, recipient))
    return hashlib.blake2b(identity.encode(), digest_size=16).digest()
