"""Makes rows of the stream's events about mail."""

from collections.abc import Sequence

from soc.events.readers import Arrival
from soc.mail_collector import messages
from soc.mail_collector.models import MailEvent

KIND = "mail"
PROVIDER = "SOC Mail Robot"
CHANNEL = "Application"


def read(arrival: Arrival) -> Sequence[MailEvent]:
    """Return the row of an event of a mail robot, nothing of another's.

    Raises:
        ValueError: the event is a mail robot's and no check.
    """
    event = arrival.event
    if event.provider.lower() != PROVIDER.lower():
        return []
    check = messages.read(event.message, event.values)
    return [
        arrival.row(
            MailEvent,
            kind=check.kind.value,
            passed=check.passed,
            mailbox=check.mailbox,
            wm_id=check.wm_id,
            message_id=check.message_id,
            sender=check.sender,
            recipients=list(check.recipients),
            text=check.text,
        )
    ]
