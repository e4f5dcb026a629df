"""The mail routes' part of the matrix of domains, which `soc.mail_collector` shows."""

from collections.abc import Iterator

from soc.common.pairs import ActivePair
from soc.mail_routes import pages

PERMISSION = "mail_routes.view_mailroute"


def pairs() -> Iterator[ActivePair]:
    """Yield what round trips say of the mail between domains."""
    for row in pages.read_list():
        yield ActivePair(
            sender=row.route.sender.rpartition("@")[2].lower(),
            recipient=row.route.recipient.rpartition("@")[2].lower(),
            name=row.route.name,
            tone=row.tone,
            label=row.label,
            seconds=row.done.seconds if row.done else None,
            link=row.route.get_absolute_url(),
        )
