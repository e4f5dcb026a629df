"""The marked mail of a round trip, and what its header says on arrival."""

import re
from collections.abc import Iterable
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid, parsedate_to_datetime
from typing import NamedTuple

MARK = "X-SOC-Round-Trip"
ROUTE = "X-SOC-Mail-Route"
MOST_HOPS = 30
LONGEST_HOST = 100

_BY = re.compile(r"\bby\s+([^\s;()]+)", re.IGNORECASE)


class Hop(NamedTuple):
    """A server that has noted when it received a mail."""

    by: str
    at: datetime


def word(token: str) -> str:
    """Return what stands in the mail subject of all mails of a route: a word, for searches."""
    return f"soctrip{token}"


def make(
    *, sender: str, recipient: str, site: str, token: str, mark: str, now: datetime
) -> EmailMessage:
    """Return the mail of a round trip.

    The mark stands in the header, and what it is searched by in the mail subject: of a header
    field, servers need not have an index.
    """
    mail = EmailMessage()
    mail["From"], mail["To"] = sender, recipient
    mail["Subject"] = f"Round trip of {site}: {word(token)}"
    mail["Date"] = format_datetime(now)
    mail["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2])
    # Nobody's holiday is to answer it (RFC 3834, 5).
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Auto-Response-Suppress"] = "All"
    mail[ROUTE], mail[MARK] = token, mark
    mail.set_content(
        f"{site} measures how long mail takes to get here. It finds this mail, and deletes it.\n"
    )
    return mail


def hops(received: Iterable[str]) -> list[Hop]:
    """Return the hops of a mail from its fields Received, the first server first.

    The newest field stands at the top (RFC 5321, 4.4). One without a time is left out.
    """
    found = []
    for text in list(received)[:MOST_HOPS]:
        by = _BY.search(text)
        try:
            at = parsedate_to_datetime(text.rpartition(";")[2].strip())
        except ValueError:
            continue
        if at.tzinfo is not None:
            found.append(Hop(by[1][:LONGEST_HOST] if by else "?", at))
    return found[::-1]
