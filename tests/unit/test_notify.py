"""Subscriptions, templates and the outbox; SMTP is spoken to a real server."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from datetime import timedelta

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from celery.exceptions import SoftTimeLimitExceeded
from django.core.exceptions import ValidationError
from django.test import Client
from django.utils import timezone

from soc.notify import outbox, smtp, tasks, templates
from soc.notify.models import OutboundMail, Subscription, validate_recipients, validate_tags
from soc.notify.templates import Notice

pytestmark = pytest.mark.django_db

NOTICE = Notice("A title", "warning", "A summary.", {"Host": "h<b>"}, "https://localhost/x")


class Relay:
    """An aiosmtpd handler that keeps mails and answers as it is told."""

    def __init__(self) -> None:
        self.mails: list[Envelope] = []
        self.sessions: set[int] = set()
        self.reply = "250 OK"
        self.recipient_reply = "250 OK"
        self.refused = ""

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        reply = "550 No such user" if address == self.refused else self.recipient_reply
        if reply.startswith("250"):
            envelope.rcpt_tos.append(address)
        return reply

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.sessions.add(id(session))
        if self.reply.startswith("250"):
            self.mails.append(envelope)
        return self.reply


@pytest.fixture
def relay(settings: object) -> Iterator[Relay]:
    handler = Relay()
    controller = Controller(handler, hostname="127.0.0.1", port=0, enable_SMTPUTF8=False)
    controller.port = free_port()
    controller.start()
    settings.SMTP_HOST, settings.SMTP_PORT = "127.0.0.1", controller.port
    settings.SMTP_SECURITY = "none"
    yield handler
    smtp.close()
    controller.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def subscription() -> Subscription:
    return Subscription.objects.create(
        name="ops", recipients="a@health.internal\nb@health.internal", tags="SOC, CERT"
    )


@pytest.mark.parametrize("value", ["", "a@b.internal\nnobody", "a b@c.internal", "<x@y.internal>"])
def test_bad_recipients_are_refused(value: str) -> None:
    with pytest.raises(ValidationError):
        validate_recipients(value)


def test_the_bad_recipient_is_named() -> None:
    with pytest.raises(ValidationError, match="Not a mail address: nobody, x@"):
        validate_recipients("good@health.internal\nnobody\nx@")


def test_bad_tags_are_refused() -> None:
    validate_tags("SOC, CERT-1")
    with pytest.raises(ValidationError, match="a b"):
        validate_tags("SOC, a b")


@pytest.mark.parametrize(
    "source",
    [
        *("{% if title %}", "{{ title|timesince }}", "{{ 5|divisibleby:0 }}"),
        "{% widthratio a b c %}",
    ],
)
def test_a_broken_template_is_refused_when_it_is_saved(
    subscription: Subscription, source: str
) -> None:
    subscription.full_clean()
    subscription.subject_template = source
    with pytest.raises(ValidationError, match=r"not a valid template: ."):
        subscription.full_clean()


@pytest.mark.parametrize("source", ["{% load static %}", '{% include "x" %}', "{% extends 'x' %}"])
def test_a_template_can_reach_nothing_outside(source: str) -> None:
    with pytest.raises(ValidationError):
        templates.validate(source)


def test_a_notice_is_queued_once_per_subscription_and_occasion(subscription: Subscription) -> None:
    Subscription.objects.create(name="two", recipients="c@health.internal")
    assert outbox.enqueue(NOTICE, "occasion") == 2
    assert outbox.enqueue(NOTICE, "occasion") == 0
    assert outbox.enqueue(NOTICE, "another") == 2


def test_a_template_that_fails_costs_no_mail(
    subscription: Subscription, caplog: pytest.LogCaptureFixture
) -> None:
    Subscription.objects.update(text_template="{{ 5|divisibleby:0 }}")
    Subscription.objects.create(name="two", recipients="c@health.internal", text_template="Mine")
    assert outbox.enqueue(NOTICE, "occasion") == 2
    broken, good = OutboundMail.objects.order_by("subscription__name")
    assert broken.subject == "[SOC] [CERT] WARNING: A title (local)"
    assert "A summary." in broken.text
    assert good.text == "Mine"
    assert "ops gets the default texts" in caplog.text


def test_a_time_limit_is_not_taken_for_a_template_that_fails(
    subscription: Subscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_time(*_: object, **__: object) -> None:
        raise SoftTimeLimitExceeded

    monkeypatch.setattr(templates, "render", out_of_time)
    with pytest.raises(SoftTimeLimitExceeded):
        outbox.enqueue(NOTICE, "occasion")


def test_a_disabled_subscription_gets_nothing(subscription: Subscription) -> None:
    subscription.enabled = False
    subscription.save()
    assert outbox.enqueue(NOTICE, "occasion") == 0


def test_a_mail_arrives_with_tags_text_and_escaped_html(
    subscription: Subscription, relay: Relay
) -> None:
    outbox.enqueue(NOTICE, "occasion")
    assert outbox.send_due() == 1
    (envelope,) = relay.mails
    content = envelope.content.decode()
    assert envelope.rcpt_tos == ["a@health.internal", "b@health.internal"]
    assert "Subject: [SOC] [CERT] WARNING: A title (local)" in content
    assert "h&lt;b&gt;" in content
    mail = OutboundMail.objects.get()
    assert f"Message-ID: {mail.message_id}" in content
    assert (mail.state, mail.next_try_at) == (OutboundMail.State.SENT, None)


def test_a_title_cannot_add_header_fields(subscription: Subscription, relay: Relay) -> None:
    evil = Notice("x\r\nBcc: thief@evil.internal\r\n\r\nbody", "info", "s", {})
    outbox.enqueue(evil, "occasion")
    outbox.send_due()
    (envelope,) = relay.mails
    head = envelope.content.decode().split("\r\n\r\n")[0]
    assert not any(line.startswith("Bcc:") for line in head.splitlines())
    assert "thief@evil.internal" not in envelope.rcpt_tos


def test_the_connection_is_kept_for_the_next_mail(subscription: Subscription, relay: Relay) -> None:
    for occasion in ("one", "two", "three"):
        outbox.enqueue(NOTICE, occasion)
    assert outbox.send_due() == 3
    assert len(relay.sessions) == 1


def test_a_relay_that_is_down_keeps_the_mail_and_says_why(
    subscription: Subscription, settings: object
) -> None:
    settings.SMTP_HOST, settings.SMTP_PORT = "127.0.0.1", free_port()
    settings.SMTP_SECURITY = "none"
    outbox.enqueue(NOTICE, "occasion")
    assert outbox.send_due() == 0
    mail = OutboundMail.objects.get()
    assert mail.state == OutboundMail.State.QUEUED
    assert "Connection refused" in mail.last_error
    assert mail.attempts == 1
    assert mail.next_try_at > timezone.now()


def test_a_relay_that_is_down_is_asked_once_for_all_mail(
    subscription: Subscription, settings: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SMTP_HOST, settings.SMTP_PORT = "127.0.0.1", free_port()
    attempts = []
    connect = smtp._connect
    monkeypatch.setattr(smtp, "_connect", lambda: (attempts.append(1), connect())[1])
    for number in range(outbox.BATCH):
        outbox.enqueue(NOTICE, f"occasion {number}")
    outbox.send_due()
    assert len(attempts) == 1
    mails = OutboundMail.objects.all()
    assert all("Connection refused" in mail.last_error for mail in mails)
    assert all(mail.next_try_at > timezone.now() for mail in mails)


def test_a_storm_wakes_another_worker(
    subscription: Subscription, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken = []
    monkeypatch.setattr(tasks.send_due_mail, "apply_async", lambda **_: woken.append(1))
    for number in range(outbox.BATCH + 1):
        outbox.enqueue(NOTICE, f"occasion {number}")
    assert tasks.send_due_mail() == outbox.BATCH + 1
    assert tasks.send_due_mail() == 0
    assert len(woken) == 1


def test_a_mail_is_sent_when_the_relay_is_back(subscription: Subscription, relay: Relay) -> None:
    relay.reply = "451 Try again later"
    outbox.enqueue(NOTICE, "occasion")
    assert outbox.send_due() == 0
    mail = OutboundMail.objects.get()
    assert (mail.state, mail.smtp_code) == (OutboundMail.State.QUEUED, 451)
    relay.reply = "250 OK"
    assert outbox.send_due() == 0, "not before its time"
    OutboundMail.objects.update(next_try_at=timezone.now())
    assert outbox.send_due() == 1


@pytest.mark.parametrize("field", ["reply", "recipient_reply"])
def test_a_refusal_for_good_is_recorded_and_not_repeated(
    subscription: Subscription, relay: Relay, field: str
) -> None:
    setattr(relay, field, "550 No such user")
    outbox.enqueue(NOTICE, "occasion")
    outbox.send_due()
    mail = OutboundMail.objects.get()
    assert (mail.state, mail.smtp_code, mail.next_try_at) == (OutboundMail.State.FAILED, 550, None)
    assert "No such user" in mail.last_error


def test_a_recipient_that_is_refused_costs_the_others_nothing(
    subscription: Subscription, relay: Relay, browser: Client, caplog: pytest.LogCaptureFixture
) -> None:
    relay.refused = "b@health.internal"
    outbox.enqueue(NOTICE, "occasion")
    assert outbox.send_due() == 1
    assert [envelope.rcpt_tos for envelope in relay.mails] == [["a@health.internal"]]
    mail = OutboundMail.objects.get()
    assert (mail.state, mail.smtp_code, mail.next_try_at) == (OutboundMail.State.SENT, 250, None)
    assert mail.last_error == "b@health.internal: The relay answered 550 No such user"
    assert mail.last_error in caplog.text
    page = browser.get("/admin/notify/outboundmail/", secure=True).content.decode()
    assert mail.last_error in page


def test_an_international_domain_goes_to_any_relay(
    subscription: Subscription, relay: Relay
) -> None:
    Subscription.objects.update(recipients="ops@bücher.example")
    outbox.enqueue(NOTICE, "occasion")
    assert outbox.send_due() == 1
    (envelope,) = relay.mails
    assert envelope.rcpt_tos == ["ops@xn--bcher-kva.example"]
    assert "To: ops@xn--bcher-kva.example" in envelope.content.decode()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"recipients": ["jürgen@health.internal"]}, "SMTPUTF8"),
        ({"recipients": [f"a@{'ü' * 63}.example"]}, "label"),
        ({"recipients": ["a@health.internal", "b\n@health.internal"]}, "newline|linefeed"),
        ({"subject": "two\nlines"}, "linefeed"),
    ],
)
def test_a_mail_that_cannot_be_composed_fails_alone(
    subscription: Subscription, relay: Relay, values: dict[str, object], reason: str
) -> None:
    outbox.enqueue(NOTICE, "bad")
    OutboundMail.objects.update(**values)
    outbox.enqueue(NOTICE, "good")
    assert outbox.send_due() == 1
    bad, good = OutboundMail.objects.order_by("created_at")
    assert (bad.state, bad.next_try_at) == (OutboundMail.State.FAILED, None)
    assert re.search(reason, bad.last_error)
    assert good.state == OutboundMail.State.SENT


def test_a_login_that_the_relay_refuses_keeps_the_mail(
    subscription: Subscription, relay: Relay, settings: object
) -> None:
    """The relay of this test takes no login at all."""
    settings.SMTP_USER = "soc"
    (settings.IDENTITY / "smtp_password").write_text("guess")
    outbox.enqueue(NOTICE, "occasion")
    outbox.send_due()
    assert OutboundMail.objects.get().state == OutboundMail.State.QUEUED
    (settings.IDENTITY / "smtp_password").unlink()
    OutboundMail.objects.update(next_try_at=timezone.now())
    outbox.send_due()
    assert "smtp_password" in OutboundMail.objects.get().last_error


def test_the_claim_of_a_dead_worker_falls_due_again(
    subscription: Subscription, relay: Relay
) -> None:
    outbox.enqueue(NOTICE, "occasion")
    assert len(outbox._claim()) == 1
    assert outbox._claim() == [], "claimed by one worker"
    OutboundMail.objects.update(next_try_at=timezone.now() - timedelta(seconds=1))
    assert outbox.send_due() == 1


def test_the_wait_between_tries_grows_to_a_limit() -> None:
    waits = [outbox._backoff(attempts) for attempts in range(15)]
    assert waits[0] <= outbox.FIRST_RETRY
    assert all(wait <= outbox.LONGEST_RETRY for wait in waits)
    assert waits[-1] >= outbox.LONGEST_RETRY / 2


def test_a_relay_that_accepts_and_says_nothing_is_given_up(
    subscription: Subscription, settings: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtp, "TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.SMTP_HOST, settings.SMTP_PORT = "127.0.0.1", silent.getsockname()[1]
        settings.SMTP_SECURITY = "none"
        outbox.enqueue(NOTICE, "occasion")
        assert outbox.send_due() == 0
    assert "timed out" in OutboundMail.objects.get().last_error


def test_starttls_is_verified(subscription: Subscription, relay: Relay, settings: object) -> None:
    """A relay without STARTTLS gets no mail when the site asks for it."""
    settings.SMTP_SECURITY = "starttls"
    outbox.enqueue(NOTICE, "occasion")
    assert outbox.send_due() == 0
    mail = OutboundMail.objects.get()
    assert mail.state == OutboundMail.State.QUEUED
    assert "STARTTLS" in mail.last_error
    assert relay.mails == []
