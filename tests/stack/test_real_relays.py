"""What Exim, OpenSMTPD and Postfix refuse: no mail is lost or doubled, whoever refuses it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import real_relays
from harness import wait_until_equal
from mailing import NOTICE, Clock, states
from real_relays import PACKAGES, PORT, RealRelay
from soc.core.severity import Severity
from soc.notify import delivery, health, outbox, smtp
from soc.notify.models import OutboundMail, Subscription
from soc.notify.templates import Notice

pytestmark = pytest.mark.django_db

MAILS = 3
SITE_WIDE = {
    ("Exim", "login"): "530 5.7.0 Authentication required",
    ("Exim", "sender"): "553 5.7.1 Sender address rejected",
    ("Exim", "closed"): "550 relay not permitted",
    ("Exim", "content"): "550 5.7.60 Client does not have permissions",
    ("OpenSMTPD", "closed"): "550 Invalid recipient",
    ("Postfix", "login"): "530 5.7.0",
    ("Postfix", "sender"): "553 5.7.1",
    ("Postfix", "closed"): "Relay access denied",
    ("Postfix", "content"): "550 5.7.60",
}
"""What each says in a mode that concerns the site: at MAIL, at RCPT, and after DATA."""


@pytest.fixture(scope="module", params=PACKAGES)
def server(request: pytest.FixtureRequest) -> Iterator[RealRelay]:
    made = real_relays.start(request.param)
    yield made
    made.remove()


@pytest.fixture
def relay(server: RealRelay, settings: Any) -> Iterator[RealRelay]:
    settings.SMTP_PORT, settings.SMTP_SECURITY = PORT, "none"
    settings.MAIL_FROM, settings.SMTP_HELO = "soc@health.internal", "soc.health.internal"
    yield server
    smtp.close()


def enter(relay: RealRelay, mode: str, settings: Any) -> None:
    smtp.close()
    relay.enter(mode)
    settings.SMTP_HOST = relay.host


def subscribe() -> None:
    for name, domain in (("ops", "health.internal"), ("duty", "other.internal")):
        Subscription.objects.create(
            name=name, recipients=f"{name}@{domain}", fallback_recipients="boss@health.internal"
        )


def wait_for_copies(relay: RealRelay, expected: dict[tuple[str, str], int]) -> None:
    wait_until_equal(
        "the copies", lambda: {k: v for k, v in relay.copies().items() if k in expected}, expected
    )


@pytest.mark.parametrize("mode", ["login", "sender", "closed", "content"])
def test_a_refusal_of_the_site_holds_all_mail_until_it_is_cured(
    relay: RealRelay, clock: Clock, settings: Any, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    if (relay.software, mode) not in SITE_WIDE:
        pytest.skip(f"{relay.software} refuses nothing there without TLS")
    enter(relay, mode, settings)
    subscribe()
    for number in range(MAILS):
        outbox.enqueue(NOTICE, f"occasion {number}")
    before = relay.copies()
    for _ in range(60):
        delivery.send_due()
        clock.move(minutes=1)
    assert states() == {"queued": 2 * MAILS}, "an hour later, and no copy for the fallback"
    assert SITE_WIDE[relay.software, mode] in health.relay_state().error
    attempts = health.relay_state().failures
    assert 10 <= attempts <= 40, "further and further apart"
    assert relay.copies() == before
    enter(relay, "open", settings)
    clock.move(minutes=5)
    while delivery.send_due():
        pass
    sent = OutboundMail.objects.filter(state="sent")
    wait_for_copies(relay, {(m.message_id, r): 1 for m in sent for r in m.recipients})
    assert states().get("failed", 0) == 0
    assert health.relay_state() == health.RelayState()
    told = OutboundMail.objects.filter(kind="notice")
    assert {m.state for m in told} <= {"sent", "digested"}
    repeated = sum(n - 1 for (key, _), n in relay.copies().items() if (key, _) not in before)
    with capsys.disabled():
        print(
            f"\n{relay.version()}, {mode}: {told.count()} of {2 * MAILS} mails delivered in "
            f"{sent.count()}, 0 failed, {repeated} repeated; {attempts} attempts in an hour"
        )
    assert repeated == 0


def test_a_recipient_that_is_unknown_fails_alone(
    relay: RealRelay, clock: Clock, settings: Any
) -> None:
    """Its domain is not this relay's, and so it is said to relay nothing there."""
    enter(relay, "open", settings)
    subscribe()
    Subscription.objects.create(name="gone", recipients="gone@elsewhere.example")
    outbox.enqueue(NOTICE, "occasion")
    delivery.send_due()
    assert states() == {"sent": 2, "failed": 1}
    assert health.relay_state() == health.RelayState()


def test_a_mail_beyond_the_relays_limit_goes_without_its_table(
    relay: RealRelay, clock: Clock, settings: Any
) -> None:
    enter(relay, "small", settings)
    made = Subscription.objects.create(name="ops", recipients="ops@health.internal", csv=True)
    rows = "\n".join(f"row {number},of a table" for number in range(1_000))
    notice = Notice("Too large", Severity.WARNING, "Short.", {"Host": "h"}, "", csv=rows)
    outbox.enqueue(notice, "large", to=[made])
    # Without a kept session nothing is known of the limit but what EHLO offers.
    assert delivery.send_due() == 1
    mail = OutboundMail.objects.get()
    wait_for_copies(relay, {(mail.message_id, "ops@health.internal"): 1})
    (copy,) = [m for m in relay.mails() if m["Message-ID"].strip() == mail.message_id]
    assert "The mail relay refuses a mail as large as this one" in copy.as_string()


def test_a_size_that_is_not_offered_is_found_out_after_data(
    relay: RealRelay, clock: Clock, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relay further on may know a smaller limit than the one that answers."""
    monkeypatch.setattr(smtp, "_largest", lambda _: 0)
    test_a_mail_beyond_the_relays_limit_goes_without_its_table(relay, clock, settings)
