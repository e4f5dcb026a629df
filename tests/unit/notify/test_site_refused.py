"""What a relay has against the site is no fault of a mail: everything waits until it is cured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from scripted import Script, relay

from mailing import NOTICE, Clock, make_due, relay_row, states
from soc.notify import delivery, health, outbox, smtp
from soc.notify.models import OutboundMail, Subscription

pytestmark = pytest.mark.django_db


@pytest.fixture
def script(settings: Any) -> Iterator[Script]:
    with relay() as made:
        settings.SMTP_HOST, settings.SMTP_PORT = "127.0.0.1", made.port
        settings.SMTP_SECURITY = "none"
        yield made
        smtp.close()


@pytest.fixture
def subscriptions() -> list[Subscription]:
    return [
        Subscription.objects.create(
            name=name, recipients=f"{name}@{name}.internal", fallback_recipients="boss@b.internal"
        )
        for name in ("ops", "duty")
    ]


REFUSALS = {
    "banner": ("", "554 5.7.1 Client host rejected"),
    "ehlo": ("EHLO", "504 5.5.2 Helo command rejected: need fully-qualified hostname"),
    "login needed, Exim": ("MAIL", "530 5.7.0 Authentication required"),
    "sender, Exim": ("MAIL", "553 5.7.1 Sender address rejected: not owned by user"),
    "login needed, Exchange Online": (
        "MAIL",
        "530 5.7.57 Client not authenticated to send mail. Error: 535 5.7.139",
    ),
    "relaying, Postfix": ("RCPT", "554 5.7.1 <x>: Relay access denied"),
    "relaying, Exim": ("RCPT", "550 relay not permitted"),
    "relaying, OpenSMTPD": ("RCPT", "550 Invalid recipient: <x>"),
    "relaying, qmail": ("RCPT", "553 sorry, not in my list of allowed rcpthosts (#5.7.1)"),
    "client, Postfix": ("RCPT", "554 5.7.1 <unknown[192.0.2.1]>: Client host rejected"),
    "sender, Postfix": ("RCPT", "553 5.1.8 <soc@x>: Sender address rejected: Domain not found"),
    "sender after DATA, Exchange Online": (
        ".",
        "550 5.7.60 SMTP; Client does not have permissions to send as this sender",
    ),
    "sender after DATA, SendAsDenied": (".", "554 5.2.252 SendAsDenied; a@x not allowed"),
    "name, Postfix": ("RCPT", "504 5.5.2 <host>: Helo command rejected"),
}


@pytest.mark.parametrize("where", REFUSALS)
def test_a_refusal_of_the_site_holds_all_mail_until_it_is_cured(
    subscriptions: list[Subscription], script: Script, clock: Clock, where: str
) -> None:
    verb, refusal = REFUSALS[where]
    script.answers[verb] = refusal
    if verb == "EHLO":
        script.answers["HELO"] = refusal
    for number in range(3):
        outbox.enqueue(NOTICE, f"occasion {number}")
    for _ in range(120):
        delivery.send_due()
        clock.move(seconds=30)
    mails = OutboundMail.objects.all()
    assert {(mail.state, mail.attempts, mail.alone) for mail in mails} == {("queued", 0, False)}
    assert len(mails) == 6, "no copy for the fallback recipients"
    assert refusal.split(" ", 1)[1][:30] in health.relay_state().error
    sessions = script.heard[""]
    assert 12 <= sessions <= 40, "one probe at a time, further and further apart"
    assert script.taken == []
    assert relay_row().failures + 1 >= sessions - 1, "all but the first attempt are probes"
    del script.answers[verb]
    script.answers.pop("HELO", None)
    clock.move(minutes=5)
    # Only a whole mail shows that a refusal after DATA is over.
    trials = int(verb == ".")
    assert delivery.send_due() == 2 + trials, "a digest for each subscription"
    assert states() == {"digested": 6 - trials, "sent": 2 + trials}


def test_the_probes_of_a_refusal_ask_few_recipients(
    subscriptions: list[Subscription], script: Script, clock: Clock
) -> None:
    """A relay answers a client that makes only errors slower and slower."""
    script.answers["RCPT"] = "554 5.7.1 Relay access denied"
    names = [f"{number}@{number}.internal" for number in range(50)]
    Subscription.objects.create(name="many", recipients="\n".join(names))
    relay_row_of_an_outage(clock)
    assert delivery.send_due() == 0
    assert script.heard["RCPT"] == smtp.MOST_ASKED
    assert script.heard["DATA"] == 0


def relay_row_of_an_outage(clock: Clock) -> None:
    delivery.relay.mark_down(OSError("gone"), clock.now)
    clock.move(minutes=5)


@pytest.mark.parametrize(
    "refusal",
    ["550 5.7.1 Access denied", "550 closed list", "550 5.1.1 No such user", "550 5.7.133 Closed"],
)
def test_a_recipient_that_is_refused_alone_holds_nobody_up(
    subscriptions: list[Subscription], script: Script, refusal: str
) -> None:
    script.to("RCPT", ops=refusal)
    outbox.enqueue(NOTICE, "occasion")
    assert delivery.send_due() == 2, "one is the copy for the fallback recipients"
    assert states() == {"failed": 1, "sent": 2}
    assert health.relay_state() == health.RelayState()
    assert len(script.taken) == 2


def test_a_relay_that_knows_no_recipient_is_no_refusal_of_the_site(
    subscriptions: list[Subscription], script: Script
) -> None:
    script.answers["RCPT"] = "550 5.1.1 No such user"
    outbox.enqueue(NOTICE, "occasion")
    delivery.send_due()
    assert states() == {"failed": 4}
    assert health.relay_state() == health.RelayState()
    assert script.heard["RCPT"] == 4, "nobody else is asked about"


def test_a_content_that_is_refused_is_the_mails_own(
    subscriptions: list[Subscription], script: Script
) -> None:
    script.answers["."] = "554 5.7.1 Spam"
    outbox.enqueue(NOTICE, "occasion", to=subscriptions[:1])
    delivery.send_due()
    assert states() == {"failed": 2}
    assert health.relay_state() == health.RelayState()


def test_a_relay_that_knows_recipients_again_is_up_though_it_refuses_others(
    subscriptions: list[Subscription], script: Script, clock: Clock
) -> None:
    script.answers["RCPT"] = "550 relay not permitted"
    outbox.enqueue(NOTICE, "occasion")
    delivery.send_due()
    assert health.relay_state().down_since
    script.to("RCPT", ops="550 relay not permitted", duty="451 4.7.1 Greylisted")
    clock.move(minutes=5)
    assert delivery.send_due() == 1, "the copy for the fallback recipients"
    assert states() == {"failed": 1, "queued": 1, "sent": 1}


def test_a_login_that_ends_between_two_mails_costs_neither(
    subscriptions: list[Subscription], script: Script, clock: Clock
) -> None:
    outbox.enqueue(NOTICE, "first")
    assert delivery.send_due() == 2
    script.answers["MAIL"] = "530 5.7.0 Authentication required"
    outbox.enqueue(NOTICE, "second")
    assert delivery.send_due() == 0
    assert states() == {"sent": 2, "queued": 2}
    del script.answers["MAIL"]
    clock.move(minutes=5)
    make_due()
    assert delivery.send_due() == 2


def test_the_relay_hears_the_name_that_the_site_has_set(
    subscriptions: list[Subscription], script: Script, settings: Any
) -> None:
    settings.SMTP_HELO = "soc.health.internal"
    outbox.enqueue(NOTICE, "occasion")
    assert delivery.send_due() == 2
    assert script.helos == {"soc.health.internal"}
