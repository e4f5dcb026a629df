"""Mail that comes back: whom a delivery status notification marks, and what marks nobody."""

from __future__ import annotations

import socket
from email import message_from_string
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from pki import issue
from soc.notify import bounces
from soc.notify.models import Bounce, OutboundMail, Subscription
from soc.notify.panels import problems, read

pytestmark = pytest.mark.django_db

REPORT = """\
From: MAILER-DAEMON@mx.example.org
To: soc@health.internal
Subject: Undelivered Mail Returned to Sender
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type={kind}; boundary="b"

--b
Content-Type: text/plain

I'm sorry to have to inform you.

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.org
Arrival-Date: Tue, 1 Dec 2026 12:00:00 +0000

{blocks}

--b
Content-Type: {returned}

From: soc@health.internal
Subject: CRITICAL: portal
Message-ID: {message_id}

--b--
"""
BLOCK = """\
{named}
Action: {action}
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 <gone@other.internal>: user
    unknown
"""
GONE = "Final-Recipient: rfc822; gone@other.internal"


@pytest.fixture
def mail(db: None) -> OutboundMail:
    """A mail that the relay has taken for two recipients."""
    subscription = Subscription.objects.create(
        name="ops",
        recipients="here@a.internal\nGone@other.internal",
        fallback_recipients="boss@a.b",
    )
    addresses = subscription.addresses
    return OutboundMail.objects.create(
        subscription=subscription, dedupe_key="1", recipients=addresses, delivered=addresses,
        subject="CRITICAL: portal", text="text", html="<p>text</p>", state="sent",
        next_try_at=None,
    )  # fmt: skip


def noted(
    mail: OutboundMail | str,
    *blocks: str,
    kind: str = "delivery-status",
    returned: str = "text/rfc822-headers",
) -> int | None:
    message_id = mail if isinstance(mail, str) else mail.message_id
    text = REPORT.format(
        kind=kind, returned=returned, message_id=message_id, blocks="\n".join(blocks)
    )
    return bounces.note(message_from_string(text))


def block(named: str = GONE, action: str = "failed") -> str:
    return BLOCK.format(named=named, action=action)


@pytest.mark.parametrize("returned", ["text/rfc822-headers", "message/rfc822"])
def test_a_notification_marks_its_recipient_and_no_other(mail: OutboundMail, returned: str) -> None:
    assert noted(mail, block(), returned=returned) == 1
    mail.refresh_from_db()
    assert (mail.state, mail.delivered) == ("sent", ["here@a.internal"])
    words = "550 5.1.1 <gone@other.internal>: user unknown"
    assert mail.refused == {"Gone@other.internal": f"It bounced: {words}"}
    marked = Bounce.objects.get()
    assert (marked.address, marked.words, marked.mail) == ("Gone@other.internal", words, mail)
    assert not OutboundMail.objects.exclude(pk=mail.pk).exists(), "somebody has got it"


def test_the_same_notification_twice_marks_once(mail: OutboundMail) -> None:
    assert [noted(mail, block()), noted(mail, block())] == [1, 0]


def test_a_mail_that_reached_nobody_goes_to_the_fallback_once(mail: OutboundMail) -> None:
    assert noted(mail, block(), block("Final-Recipient: rfc822;here@a.internal")) == 2
    mail.refresh_from_db()
    assert mail.state == "failed"
    copy = OutboundMail.objects.get(fallback_of=mail)
    assert (copy.recipients, copy.state) == (["boss@a.b"], "queued")
    assert "It bounced: 550 5.1.1" in copy.text
    assert noted(mail, block()) == 0
    assert OutboundMail.objects.count() == 2


def test_the_address_as_we_wrote_it_counts_where_a_server_forwards(mail: OutboundMail) -> None:
    forwarded = (
        "Original-Recipient: rfc822; gone@other.internal\n"
        "Final-Recipient: rfc822; g.one@elsewhere.example"
    )
    assert noted(mail, block(forwarded)) == 1


def test_a_forwarded_address_that_nobody_knows_marks_the_only_recipient(
    mail: OutboundMail,
) -> None:
    elsewhere = block("Final-Recipient: rfc822; g.one@elsewhere.example")
    assert noted(mail, elsewhere) == 0, "either may be meant"
    OutboundMail.objects.update(
        recipients=["Gone@other.internal"], delivered=["Gone@other.internal"]
    )
    assert noted(mail, elsewhere) == 1


@pytest.mark.parametrize("action", ["delayed", "delivered", "relayed", "expanded"])
def test_what_is_not_given_up_marks_nobody(mail: OutboundMail, action: str) -> None:
    assert noted(mail, block(action=action)) == 0


def test_a_receipt_that_a_person_has_read_it_marks_nobody(mail: OutboundMail) -> None:
    assert noted(mail, block(), kind="disposition-notification") == 0


@pytest.mark.parametrize("text", ["I am out of office.", "<gone@other.internal>: user unknown"])
def test_an_automatic_reply_marks_nobody(mail: OutboundMail, text: str) -> None:
    reply = (
        "From: Gone@other.internal\nSubject: Automatic reply: CRITICAL: portal\n"
        f"Auto-Submitted: auto-replied\nIn-Reply-To: {mail.message_id}\n\n{text}\n"
    )
    assert bounces.note(message_from_string(reply)) == 0


@pytest.mark.parametrize("message_id", ["", "<guessed@soc.invalid>"])
def test_a_notification_of_no_mail_of_ours_marks_nobody(
    mail: OutboundMail, message_id: str
) -> None:
    assert noted(message_id, block()) == 0
    assert not Bounce.objects.exists()


@pytest.mark.parametrize(
    "broken", ["", "Final-Recipient: rfc822;\n", "Action:\n\n\n\nAction: failed"]
)
def test_a_malformed_notification_marks_nobody(mail: OutboundMail, broken: str) -> None:
    assert noted(mail, broken) == 0


def test_a_mail_that_a_worker_has_in_hand_is_left_to_the_next_run(mail: OutboundMail) -> None:
    OutboundMail.objects.update(state="sending", next_try_at=mail.created_at)
    assert noted(mail, block()) is None
    assert not Bounce.objects.exists()


def test_the_board_and_the_subscriptions_name_who_is_marked(
    mail: OutboundMail, browser: Client
) -> None:
    noted(mail, block())
    assert any(
        "Gone@other.internal" in p.text for p in problems(read(mail.created_at), mail.created_at)
    )
    page = browser.get("/admin/notify/subscription/", secure=True).content.decode()
    assert "Mail came back from Gone@other.internal" in page
    assert "user unknown" in browser.get("/admin/notify/bounce/", secure=True).content.decode()


class Mailbox:
    """A mailbox with the same message under several numbers."""

    def __init__(self, octets: bytes, number: int) -> None:
        self.unread = dict.fromkeys(range(1, number + 1), octets)
        self.seen: list[int] = []

    def search(self, _: object) -> list[int]:
        return [key for key in self.unread if key not in self.seen]

    def fetch(self, keys: list[int], _: object) -> dict[int, dict[bytes, bytes]]:
        return {key: {b"BODY[]": self.unread[key]} for key in keys if key != 2}

    def add_flags(self, keys: list[int], _: object) -> None:
        self.seen += keys


def test_a_run_reads_a_bounded_number_and_what_another_reader_took_stops_nothing(
    mail: OutboundMail, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailbox = Mailbox(REPORT.encode(), 80)
    assert bounces._collect(mailbox) == 0
    assert mailbox.seen == list(range(1, bounces.MOST + 1))
    monkeypatch.setattr(bounces, "PATIENCE", -1)
    bounces._collect(mailbox)
    assert len(mailbox.seen) == bounces.MOST, "a run that takes too long ends"


def test_what_is_not_settled_is_read_again(mail: OutboundMail) -> None:
    OutboundMail.objects.update(state="sending", next_try_at=mail.created_at)
    text = REPORT.format(
        kind="delivery-status", returned="text/rfc822-headers", message_id=mail.message_id,
        blocks=block(),
    )  # fmt: skip
    mailbox = Mailbox(text.encode(), 1)
    assert (bounces._collect(mailbox), mailbox.seen) == (0, [])
    OutboundMail.objects.update(state="sent", next_try_at=None)
    assert (bounces._collect(mailbox), mailbox.seen) == (1, [1])


def test_a_mailbox_that_says_nothing_is_given_up(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounces, "TIMEOUT", 0.2)
    (tmp_path / "ca.pem").write_bytes(issue("site", ca=True).cert_pem)
    settings.IDENTITY = tmp_path
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.BOUNCE_IMAP_HOST, settings.BOUNCE_IMAP_PORT = silent.getsockname()
        with pytest.raises(TimeoutError):
            bounces.collect()


def test_without_a_mailbox_nothing_is_read() -> None:
    assert bounces.collect() == 0
