"""Delivery to a real SMTP server: what arrives, and what becomes of what does not."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session
from celery.exceptions import SoftTimeLimitExceeded
from django.db import OperationalError
from django.test import Client
from django.utils import timezone

from mailing import NOTICE, Clock, FakeRelay, Outage, make_due, states
from soc.core.severity import Severity
from soc.notify import delivery, outbox, smtp, tasks, tidying
from soc.notify.models import OutboundMail, Subscription
from soc.notify.templates import Notice

pytestmark = pytest.mark.django_db

A, B = "a@health.internal", "b@health.internal"


def test_a_mail_arrives_with_tags_text_and_escaped_html(
    subscription: Subscription, relay: FakeRelay
) -> None:
    outbox.enqueue(NOTICE, "occasion")
    assert delivery.send_due() == 1
    (envelope,) = relay.mails
    content = envelope.content.decode()
    assert envelope.rcpt_tos == ["a@health.internal", "b@health.internal"]
    assert "Subject: [SOC] [CERT] WARNING: A title (local)" in content
    assert "h&lt;b&gt;" in content
    mail = OutboundMail.objects.get()
    assert f"Message-ID: {mail.message_id}" in content
    assert (mail.state, mail.next_try_at) == (OutboundMail.State.SENT, None)


def test_a_title_cannot_add_header_fields(subscription: Subscription, relay: FakeRelay) -> None:
    evil = Notice("x\r\nBcc: thief@evil.internal\r\n\r\nbody", Severity.INFO, "s", {})
    outbox.enqueue(evil, "occasion")
    delivery.send_due()
    (envelope,) = relay.mails
    head = envelope.content.decode().split("\r\n\r\n")[0]
    assert not any(line.startswith("Bcc:") for line in head.splitlines())
    assert "thief@evil.internal" not in envelope.rcpt_tos


def test_the_connection_is_kept_for_the_next_mail(
    subscription: Subscription, relay: FakeRelay
) -> None:
    for occasion in ("one", "two", "three"):
        outbox.enqueue(NOTICE, occasion)
    assert delivery.send_due() == 3
    assert len(relay.sessions) == 1


def test_a_storm_wakes_another_worker(
    subscription: Subscription, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken = []
    monkeypatch.setattr(tasks.send_due_mail, "apply_async", lambda **_: woken.append(1))
    for number in range(delivery.BATCH + 1):
        outbox.enqueue(NOTICE, f"occasion {number}")
    assert tasks.send_due_mail() == delivery.BATCH + 1
    assert tasks.send_due_mail() == 0
    assert len(woken) == 1


def test_a_mail_is_sent_when_the_relay_is_back(
    subscription: Subscription, relay: FakeRelay
) -> None:
    relay.reply = "451 Try again later"
    outbox.enqueue(NOTICE, "occasion")
    assert delivery.send_due() == 0
    mail = OutboundMail.objects.get()
    assert (mail.state, mail.smtp_code) == (OutboundMail.State.QUEUED, 451)
    relay.reply = "250 OK"
    assert delivery.send_due() == 0, "not before its time"
    OutboundMail.objects.update(next_try_at=timezone.now())
    assert delivery.send_due() == 1


@pytest.mark.parametrize("field", ["reply", "recipient_reply"])
def test_a_refusal_for_good_is_recorded_and_not_repeated(
    subscription: Subscription, relay: FakeRelay, field: str
) -> None:
    setattr(relay, field, "550 5.1.1 No such user")
    outbox.enqueue(NOTICE, "occasion")
    delivery.send_due()
    mail = OutboundMail.objects.get()
    assert (mail.state, mail.smtp_code, mail.next_try_at) == (OutboundMail.State.FAILED, 550, None)
    assert "No such user" in mail.last_error


def test_a_recipient_that_is_refused_costs_the_others_nothing(
    subscription: Subscription, relay: FakeRelay, browser: Client, caplog: pytest.LogCaptureFixture
) -> None:
    relay.replies["b@health.internal"] = "550 5.1.1 No such user"
    outbox.enqueue(NOTICE, "occasion")
    assert delivery.send_due() == 1
    assert [envelope.rcpt_tos for envelope in relay.mails] == [["a@health.internal"]]
    mail = OutboundMail.objects.get()
    assert (mail.state, mail.smtp_code, mail.next_try_at) == (OutboundMail.State.SENT, 250, None)
    assert mail.last_error == "b@health.internal: The relay answered 550 5.1.1 No such user"
    assert mail.last_error in caplog.text
    page = browser.get("/admin/notify/outboundmail/", secure=True).content.decode()
    assert mail.last_error in page


@pytest.mark.parametrize(
    ("domain", "sent_as"),
    [
        ("bücher.example", "xn--bcher-kva.example"),
        # Whoever owns strasse.test need not own this one.
        ("straße.test", "xn--strae-oqa.test"),
        ("Straße.TEST", "xn--strae-oqa.test"),
        ("βόλος.test", "xn--nxasmm1c.test"),
        ("mail_1.Example", "mail_1.Example"),
    ],
)
def test_an_international_domain_goes_to_any_relay(
    subscription: Subscription, relay: FakeRelay, domain: str, sent_as: str
) -> None:
    """As IDNA 2008 has it (RFC 5891), and not IDNA 2003."""
    Subscription.objects.update(recipients=f"ops@{domain}")
    outbox.enqueue(NOTICE, "occasion")
    assert delivery.send_due() == 1
    (envelope,) = relay.mails
    assert envelope.rcpt_tos == [f"ops@{sent_as}"]
    assert f"To: ops@{sent_as}" in envelope.content.decode()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"recipients": ["jürgen@health.internal"]}, "SMTPUTF8"),
        ({"recipients": [f"a@{'ü' * 63}.example"]}, "Invalid domain .* too long"),
        ({"recipients": ["a@health.internal", "b\n@health.internal"]}, "newline|linefeed"),
        ({"subject": "two\nlines"}, "linefeed"),
    ],
)
def test_a_mail_that_cannot_be_composed_fails_alone(
    subscription: Subscription, relay: FakeRelay, values: dict[str, object], reason: str
) -> None:
    outbox.enqueue(NOTICE, "bad")
    OutboundMail.objects.update(**values)
    outbox.enqueue(NOTICE, "good")
    assert delivery.send_due() == 1
    bad, good = OutboundMail.objects.order_by("created_at")
    assert (bad.state, bad.next_try_at) == (OutboundMail.State.FAILED, None)
    assert re.search(reason, bad.last_error)
    assert good.state == OutboundMail.State.SENT


def test_the_claim_of_a_dead_worker_falls_due_again(
    subscription: Subscription, relay: FakeRelay
) -> None:
    outbox.enqueue(NOTICE, "occasion")
    assert len(delivery._claim().mails) == 1
    assert not delivery._claim().mails, "claimed by one worker"
    OutboundMail.objects.update(next_try_at=timezone.now() - timedelta(seconds=1))
    assert delivery.send_due() == 1


# --- Each recipient for itself ------------------------------------------------------------------


def test_a_deferred_recipient_is_tried_alone_with_the_same_headers(
    subscription: Subscription, relay: FakeRelay
) -> None:
    relay.replies[B] = "451 Greylisted"
    outbox.enqueue(NOTICE, "occasion")
    assert delivery.send_due() == 0
    mail = OutboundMail.objects.get()
    assert (mail.state, mail.delivered, mail.outstanding) == ("queued", [A], [B])
    assert (mail.smtp_code, mail.last_error) == (451, f"{B}: The relay answered 451 Greylisted")
    relay.replies.clear()
    make_due()
    assert delivery.send_due() == 1
    assert [envelope.rcpt_tos for envelope in relay.mails] == [[A], [B]]
    first, second = relay.messages
    assert first["To"] == second["To"] == f"{A}, {B}"
    assert first["Message-ID"] == second["Message-ID"]
    assert relay.mails[0].content == relay.mails[1].content
    mail.refresh_from_db()
    assert (mail.state, mail.delivered, mail.refused) == ("sent", [A, B], {})


def test_refused_deferred_and_taken_recipients_of_one_mail(
    subscription: Subscription, relay: FakeRelay
) -> None:
    third = "c@health.internal"
    Subscription.objects.update(recipients=f"{A}\n{B}\n{third}")
    relay.replies |= {B: "550 5.1.1 No such user", third: "450 Later"}
    outbox.enqueue(NOTICE, "occasion")
    delivery.send_due()
    mail = OutboundMail.objects.get()
    assert (mail.delivered, list(mail.refused), mail.outstanding) == ([A], [B], [third])
    make_due()
    relay.replies[third] = "550 Gone"
    assert delivery.send_due() == 1
    mail.refresh_from_db()
    assert (mail.state, sorted(mail.refused)) == ("sent", [B, third])


@pytest.fixture
def fallback(subscription: Subscription) -> Subscription:
    subscription.fallback_recipients = "deputy@health.internal"
    subscription.save()
    return subscription


@pytest.mark.parametrize("field", ["reply", "recipient_reply"])
def test_what_is_refused_for_all_goes_to_the_fallback_recipients_once(
    fallback: Subscription, relay: FakeRelay, field: str
) -> None:
    setattr(relay, field, "550 5.1.1 No such user")
    outbox.enqueue(NOTICE, "occasion", topic="alert:1")
    delivery.send_due()
    failed, copy = OutboundMail.objects.order_by("created_at")
    assert (copy.fallback_of, copy.recipients) == (failed, ["deputy@health.internal"])
    assert copy.topic == failed.topic
    assert copy.message_id != failed.message_id
    assert states() == {"failed": 2}, "the copy of a copy would never end"


def test_the_fallback_recipients_are_told_why_they_get_it(
    fallback: Subscription, relay: FakeRelay
) -> None:
    relay.replies |= {A: "550 <b>Gone</b>", B: "550 <b>Gone</b>"}
    outbox.enqueue(NOTICE, "occasion", topic="alert:1")
    assert delivery.send_due() == 1
    (message,) = relay.messages
    assert message["To"] == "deputy@health.internal"
    text = message.get_body(("plain",)).get_content()
    assert f"could not be delivered to {A}, {B}: The relay answered 550 <b>Gone</b>" in text
    assert "A summary." in text
    assert "550 &lt;b&gt;Gone" in message.get_body(("html",)).get_content()
    assert outbox.conclude(NOTICE, "close", topic="alert:1") == 1, "the deputy was told"


def test_one_good_recipient_needs_no_fallback(fallback: Subscription, relay: FakeRelay) -> None:
    relay.replies[A] = "550 Gone"
    outbox.enqueue(NOTICE, "occasion")
    assert delivery.send_due() == 1
    assert states() == {"sent": 1}


def test_a_mail_without_recipients_fails_and_says_so(
    subscription: Subscription, relay: FakeRelay
) -> None:
    outbox.enqueue(NOTICE, "occasion")
    OutboundMail.objects.update(recipients=[])
    delivery.send_due()
    mail = OutboundMail.objects.get()
    assert (mail.state, mail.last_error) == ("failed", "It has no recipients.")


# --- Sessions that end early --------------------------------------------------------------------


def test_a_relay_that_ends_a_session_is_asked_in_a_new_one(
    subscription: Subscription, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postfix does so after many refusals, of whatever mails (smtpd_hard_error_limit)."""
    seen: dict[int, int] = {}

    async def tired(
        server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        seen[id(session)] = seen.get(id(session), 0) + 1
        return "421 Too many errors" if seen[id(session)] > 5 else "550 5.1.1 No such user"

    monkeypatch.setattr(relay, "handle_RCPT", tired)
    for number in range(8):
        outbox.enqueue(NOTICE, f"occasion {number}")
    delivery.send_due()
    assert states() == {"failed": 8}
    assert all(set(mail.refused) == {A, B} for mail in OutboundMail.objects.all())


def test_a_session_of_refusals_is_not_kept(
    subscription: Subscription, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected: list[int] = []
    connect = smtp.connect
    monkeypatch.setattr(smtp, "connect", lambda end: (connected.append(1), connect(end))[1])
    relay.recipient_reply = "550 5.1.1 No such user"
    for number in range(9):
        outbox.enqueue(NOTICE, f"occasion {number}")
    delivery.send_due()
    assert states() == {"failed": 9}
    assert len(connected) == 3, "18 refusals, 6 a session"


def test_a_relay_that_ends_every_session_has_the_mail_wait(
    subscription: Subscription, relay: FakeRelay
) -> None:
    relay.replies |= {A: "550 Gone", B: "421 Not now"}
    outbox.enqueue(NOTICE, "occasion")
    delivery.send_due()
    mail = OutboundMail.objects.get()
    assert (mail.state, list(mail.refused), mail.outstanding) == ("queued", [A], [B])


class Cutter(FakeRelay):
    """A relay that hangs up after it has taken a mail, before it says so."""

    cut = True

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.mails.append(envelope)
        if self.cut:
            server.transport.abort()
        return "250 OK"


def test_a_mail_whose_end_nobody_heard_comes_again_under_its_message_id(
    subscription: Subscription, outage: Outage
) -> None:
    cutter = outage.handler = Cutter()
    outage.start()
    outbox.enqueue(NOTICE, "occasion")
    assert delivery.send_due() == 0
    mail = OutboundMail.objects.get()
    assert (mail.state, mail.attempts, mail.alone) == ("queued", 1, True)
    assert "went away in the middle" in mail.last_error
    cutter.cut = False
    make_due()
    assert delivery.send_due() == 1
    assert cutter.mails[0].content == cutter.mails[1].content


def test_one_mail_that_breaks_its_session_holds_up_no_other(
    subscription: Subscription, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    cutter = outage.handler = Cutter()
    outage.start()
    original = cutter.handle_DATA

    async def picky(server: SMTP, session: Session, envelope: Envelope) -> str:
        cutter.cut = b"bad" in envelope.content
        return await original(server, session, envelope)

    monkeypatch.setattr(cutter, "handle_DATA", picky)
    for title in ("bad", "good", "fine"):
        outbox.enqueue(Notice(title, Severity.INFO, "s", {}), title)
    assert delivery.send_due() == 2
    assert states() == {"queued": 1, "sent": 2}


def test_a_relay_that_dawdles_over_every_reply_is_given_up(
    subscription: Subscription, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reply comes within its own time, but all together take too long."""
    import asyncio

    async def slow(
        server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        await asyncio.sleep(0.25)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    monkeypatch.setattr(relay, "handle_RCPT", slow)
    monkeypatch.setattr(smtp, "PATIENCE", 0.8)
    Subscription.objects.update(recipients="\n".join(f"{n}@health.internal" for n in range(20)))
    outbox.enqueue(NOTICE, "occasion")
    assert delivery.send_due() == 0
    mail = OutboundMail.objects.get()
    assert (mail.state, mail.attempts) == ("queued", 1)
    assert relay.mails == []


def test_a_time_limit_gives_back_what_was_not_touched(
    subscription: Subscription, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_time(*_: object) -> None:
        raise SoftTimeLimitExceeded

    monkeypatch.setattr(smtp, "deliver", out_of_time)
    for number in range(3):
        outbox.enqueue(NOTICE, f"occasion {number}")
    with pytest.raises(SoftTimeLimitExceeded):
        delivery.send_due()
    mails = OutboundMail.objects.order_by("-attempts")
    assert [(mail.state, mail.attempts, mail.alone) for mail in mails] == [
        ("queued", 1, True), ("queued", 0, False), ("queued", 0, False),
    ]  # fmt: skip


# --- Marking ------------------------------------------------------------------------------------


def test_a_database_that_is_away_for_a_moment_costs_no_second_mail(
    subscription: Subscription, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [OperationalError("gone away"), OperationalError("gone away")]
    mine = delivery._mine

    def away(mail: OutboundMail) -> Any:
        if failures:
            raise failures.pop()
        return mine(mail)

    monkeypatch.setattr(delivery, "_mine", away)
    monkeypatch.setattr(delivery, "PAUSES", (0, 0, 0))
    monkeypatch.setattr(delivery.connection, "close", lambda: None)
    outbox.enqueue(NOTICE, "occasion")
    assert delivery.send_due() == 1
    assert states() == {"sent": 1}


def test_a_worker_that_slept_over_its_claim_changes_nothing(
    subscription: Subscription, relay: FakeRelay, clock: Clock
) -> None:
    outbox.enqueue(NOTICE, "occasion")
    (slow,) = delivery._claim().mails
    clock.move(minutes=3)
    (fast,) = delivery._claim().mails
    assert delivery._record(fast, smtp.deliver(fast, list))
    delivery._postpone(slow, "too late", 451, alone=True)
    mail = OutboundMail.objects.get()
    assert (mail.state, mail.attempts) == ("sent", 2)


def test_a_subscription_that_is_switched_off_gets_nothing_that_waits(
    subscription: Subscription, relay: FakeRelay
) -> None:
    outbox.enqueue(NOTICE, "occasion")
    Subscription.objects.update(enabled=False)
    assert delivery.send_due() == 0
    assert states() == {"withdrawn": 1}


def test_mail_of_a_deleted_subscription_still_goes_out(
    subscription: Subscription, relay: FakeRelay
) -> None:
    outbox.enqueue(NOTICE, "occasion")
    Subscription.objects.all().delete()
    assert delivery.send_due() == 1


# --- Trying again, and giving up ----------------------------------------------------------------


def test_the_wait_between_tries_grows_to_a_limit_with_full_jitter() -> None:
    for attempts in range(15):
        waits = [delivery._backoff(attempts) for _ in range(200)]
        longest = min(delivery.FIRST_RETRY * 2**attempts, delivery.LONGEST_RETRY)
        assert min(waits) >= delivery.LEAST_RETRY
        assert max(waits) <= longest
        assert max(waits) - min(waits) > (longest - delivery.LEAST_RETRY) / 2


def test_a_mail_that_is_put_off_again_and_again_expires(
    subscription: Subscription, relay: FakeRelay, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    relay.recipient_reply = "451 Try again later"
    outbox.enqueue(NOTICE, "occasion")
    for _ in range(4 * 12 - 1):
        delivery.send_due()
        clock.move(minutes=5)
    mail = OutboundMail.objects.get()
    assert mail.state == "queued"
    assert mail.attempts > 8
    clock.move(minutes=5)
    delivery.send_due()
    mail.refresh_from_db()
    assert (mail.state, mail.next_try_at, mail.smtp_code) == ("expired", None, 451)
    assert "Try again later" in mail.last_error
    assert "1 mails were not sent in their time" in caplog.text


def test_a_mail_in_a_workers_hand_does_not_expire(
    subscription: Subscription, relay: FakeRelay, clock: Clock
) -> None:
    outbox.enqueue(NOTICE, "occasion")
    clock.move(hours=3, minutes=59)
    (mail,) = delivery._claim().mails
    clock.move(minutes=1, seconds=30)
    tidying.tidy()
    assert states() == {"sending": 1}
    delivery._record(mail, smtp.deliver(mail, list))
    assert states() == {"sent": 1}


# --- What a mail may hold -----------------------------------------------------------------------


def test_no_line_is_longer_than_a_relay_takes(subscription: Subscription, relay: FakeRelay) -> None:
    """RFC 5322, 2.1.1."""
    Subscription.objects.update(
        recipients="\n".join(f"somebody-{number}@health.internal" for number in range(200)),
        csv=True,
    )
    long = Notice("t" * 5000, Severity.INFO, "s" * 5000, {"f" * 5000: "v" * 5000}, csv="c" * 5000)
    outbox.enqueue(long, "occasion")
    assert delivery.send_due() == 1
    assert max(map(len, relay.mails[0].content.split(b"\r\n"))) <= 998


@pytest.mark.parametrize("character", ["x", "\U0001f525", "'", "\n"])
def test_the_largest_notice_stays_below_a_megabyte(
    subscription: Subscription, relay: FakeRelay, character: str
) -> None:
    Subscription.objects.update(csv=True)
    much = character * 5_000_000
    facts = {character * 300 + str(number): much for number in range(300)}
    outbox.enqueue(Notice(much, Severity.INFO, much, facts, csv=much), "occasion")
    assert delivery.send_due() == 1
    assert len(relay.mails[0].content) < 1_000_000
    assert "[cut" in relay.messages[0].get_body(("plain",)).get_content()
