"""The mail's part of the board."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Q

from soc.common.panels import Panel, Problem
from soc.common.text import age, counted
from soc.notify import health
from soc.notify.models import Bounce, Destination, OutboundMail, Subscription

MOST_UNSENT = 10
MOST_SENT = 5
SHOWN_FOR = timedelta(days=7)
"""Keeps the few mails that failed from being searched for among all that were sent."""

COUNTED_FOR = timedelta(days=1)
"""How long a mail that did not get out is a problem of the headline."""

UNSENT = (OutboundMail.State.FAILED, OutboundMail.State.EXPIRED)


@dataclass(frozen=True)
class MailState:
    """The relay, how many mails wait or did not get out, some of these, and the last that did."""

    relay: health.RelayState
    down: Sequence[tuple[Subscription, Destination]]
    """Subscriptions whose own destination takes nothing."""
    counts: health.MailCounts
    unsent: Sequence[OutboundMail]
    sent: Sequence[OutboundMail]
    bounced: Sequence[Bounce]
    """Recipients whose mail came back."""


def read(now: datetime) -> MailState:
    """Return the state of the relay and of the mail."""
    state = OutboundMail.State
    # The bodies of the mails stay in the database; the board shows the envelope.
    recent = OutboundMail.objects.filter(created_at__gt=now - SHOWN_FOR)
    mails = recent.defer("text", "html", "csv").order_by("-created_at")
    stuck = Q(state__in=[state.QUEUED, state.SENDING]) & ~Q(last_error="")
    return MailState(
        relay=health.relay_state(),
        down=[(one, row) for one, row in health.destinations() if row],
        counts=health.counts(now, now - COUNTED_FOR),
        unsent=list(mails.filter(Q(state__in=UNSENT) | stuck)[:MOST_UNSENT]),
        sent=list(mails.filter(state=state.SENT)[:MOST_SENT]),
        bounced=health.bounced_recipients(),
    )


def problems(mail: MailState, now: datetime) -> Iterator[Problem]:
    """Complain of a relay that is down, and of mail that did not get out."""
    if mail.relay.down_since:
        silence = age(mail.relay.down_since, now)
        waiting = f"{counted(mail.counts.waiting, 'mail')} wait{'s' * (mail.counts.waiting == 1)}"
        yield Problem("bad", f"The mail relay has been down for {silence}: {waiting}.", "mail")
    for subscription, row in mail.down:
        silence = age(row.down_since, now) if row.down_since else "a while"
        yield Problem(
            "bad", f"The destination of {subscription} has been down for {silence}.", "mail"
        )
    for number, what in ((mail.counts.failed, "refused"), (mail.counts.expired, "expired")):
        if number:
            yield Problem("bad", f"{counted(number, 'mail')} {what} since yesterday.", "mail")
    if mail.bounced:
        addresses = ", ".join(row.address for row in mail.bounced)
        yield Problem("warn", f"Mail comes back from {addresses}, as Bounces says.", "mail")
    stuck = sum(one.state not in UNSENT for one in mail.unsent)
    if stuck and not mail.relay.down_since:
        mails = f"{stuck} or more mails" if stuck == MOST_UNSENT else counted(stuck, "mail")
        yield Problem("warn", f"{mails} could not be sent yet.", "mail")


PANELS = (Panel("mail", read, problems, "notify/panel.html", column="narrow", position=40),)
