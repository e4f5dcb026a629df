"""The form of a mail: what programs and rules read of it, and how it fits through a relay."""

from __future__ import annotations

from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import Script
from scripted import relay as scripted

from mailing import NOTICE, Clock, FakeRelay
from soc.core.severity import Severity
from soc.notify import delivery, message, outbox, smtp
from soc.notify.message import Form
from soc.notify.models import OutboundMail, Subscription
from soc.notify.templates import Notice

pytestmark = pytest.mark.django_db


def parsed(mail: OutboundMail, form: Form = Form.WHOLE) -> EmailMessage:
    return message_from_bytes(message.octets(mail, form), policy=policy.default)  # type: ignore[return-value]


def with_subject(subject: str) -> OutboundMail:
    return OutboundMail(subject=subject, recipients=["a@health.internal"], text="t", html="<p>t")


@pytest.mark.parametrize("length", range(60, 120))
def test_a_plain_subject_is_one_line_of_the_header(length: int) -> None:
    """The library folds one of 70 to 77 characters right behind its name."""
    subject = ("CRITICAL: the disk of bot-1 is full " * 4)[:length].strip()
    assert f"\r\nSubject: {subject}\r\n" in "\r\n" + message.octets(with_subject(subject)).decode()


@given(st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=255))
def test_any_subject_comes_out_as_it_went_in(subject: str) -> None:
    octets = message.octets(with_subject(subject))
    head = octets.partition(b"\r\n\r\n")[0]
    assert head.isascii()
    assert max(map(len, head.split(b"\r\n"))) <= 998
    assert message_from_bytes(octets, policy=policy.default)["Subject"] == subject


def test_the_mails_of_an_alert_are_one_thread(subscription: Subscription) -> None:
    for key, topic in (("fired", "alert:1"), ("resolved", "alert:1"), ("other", "alert:2")):
        outbox.enqueue(NOTICE, key, topic=topic)
    outbox.enqueue(NOTICE, "of no topic")
    fired, resolved, other, alone = map(parsed, OutboundMail.objects.order_by("created_at"))
    assert fired["References"] == fired["In-Reply-To"] == resolved["References"]
    assert other["References"] != fired["References"]
    assert alone["References"] is None
    ids = {mail["Message-ID"] for mail in (fired, resolved, other, alone)}
    assert len(ids | {fired["References"]}) == 5


def test_two_sites_have_no_thread_in_common(subscription: Subscription, settings: Any) -> None:
    outbox.enqueue(NOTICE, "fired", topic="alert:1")
    here = parsed(OutboundMail.objects.get())["References"]
    settings.SITE = {**settings.SITE, "SOC_SITE": "elsewhere"}
    assert parsed(OutboundMail.objects.get())["References"] != here


def test_rules_of_mail_programs_find_what_they_sort_by(subscription: Subscription) -> None:
    notice = Notice("It", Severity.WARNING, "s", {}, application="ssl_certs", status="still")
    outbox.enqueue(notice, "occasion", topic="alert:7")
    mail = parsed(OutboundMail.objects.get())
    expected = {
        "List-Id": "<ops.local.soc.soc.internal>",
        "Importance": "normal",
        "Auto-Submitted": "auto-generated",
        "X-Auto-Response-Suppress": "All",
        "X-SOC-Site": "local",
        "X-SOC-Kind": "notice",
        "X-SOC-Severity": "warning",
        "X-SOC-Status": "still",
        "X-SOC-Application": "ssl_certs",
        "X-SOC-Topic": "alert:7",
    }
    assert {name: mail[name] for name in expected} == expected


@pytest.mark.parametrize("name", ["SOC Vancouver", 'SOC, "West"', "SOC Zürich", ""])
def test_the_site_has_the_name_that_it_has_set(
    subscription: Subscription, settings: Any, name: str
) -> None:
    settings.MAIL_FROM_NAME = name
    outbox.enqueue(NOTICE, "occasion")
    (sender,) = parsed(OutboundMail.objects.get())["From"].addresses
    assert (sender.display_name, sender.addr_spec) == (name, settings.MAIL_FROM)


def test_the_end_of_what_is_critical_is_not_important(subscription: Subscription) -> None:
    outbox.enqueue(Notice("It", Severity.CRITICAL, "s", {}, status="resolved"), "occasion")
    assert parsed(OutboundMail.objects.get())["Importance"] == "low"


def test_html_has_a_title_and_breaks_lines_for_every_mail_program(
    subscription: Subscription,
) -> None:
    outbox.enqueue(Notice("A <b>", Severity.INFO, "one\ntwo", {"Log": "1 <\n2"}), "occasion")
    html = OutboundMail.objects.get().html
    assert "<title>A &lt;b&gt;</title>" in html
    assert "one<br>two" in html
    assert "1 &lt;<br>2" in html
    assert "white-space:pre" not in html


# --- Size ---------------------------------------------------------------------------------------


@pytest.fixture
def large(subscription: Subscription) -> OutboundMail:
    Subscription.objects.update(csv=True)
    facts = {str(number): "x" * 100 for number in range(50)}
    outbox.enqueue(Notice("Large", Severity.INFO, "s" * 500, facts, csv="a,b\r\n" * 9_000), "it")
    return OutboundMail.objects.get()


@pytest.fixture
def script(settings: Any) -> Iterator[Script]:
    with scripted() as made:
        settings.SMTP_HOST, settings.SMTP_PORT = "127.0.0.1", made.port
        settings.SMTP_SECURITY = "none"
        yield made
        smtp.close()


def test_each_form_is_smaller_and_says_what_it_lacks(large: OutboundMail) -> None:
    sizes = [len(message.octets(large, form)) for form in message.forms(large)]
    assert sizes[0] > 50_000 > sizes[1] > 10_000 > 5_000 > sizes[2]
    whole, without, short = (parsed(large, form) for form in message.forms(large))
    assert [part.get_filename() for part in whole.iter_attachments()] == [large.csv_name]
    assert list(without.iter_attachments()) == []
    for part in ("plain", "html"):
        assert f"its attachment {large.csv_name} was left out" in (
            without.get_body((part,)).get_content()
        )
    assert "tables, formatting and the end of a long text" in short.get_content()
    assert short.get_content_type() == "text/plain"
    assert whole["Message-ID"] == short["Message-ID"]


def test_a_relay_that_says_its_limit_gets_no_mail_beyond_it(
    large: OutboundMail, script: Script
) -> None:
    """RFC 1870, 3."""
    script.answers["EHLO"] = "250-relay.test\n250 SIZE 40000"
    assert delivery.send_due() == 1
    assert (script.heard["MAIL"], script.heard["DATA"]) == (1, 1)
    (taken,) = script.taken
    assert len(taken) <= 40_000
    assert b"was left out" in taken
    large.refresh_from_db()
    assert (large.state, large.attempts) == ("sent", 1)


@pytest.mark.parametrize(
    ("verb", "refusal"),
    [
        ("MAIL", "552 5.3.4 Message size exceeds fixed limit"),
        ("MAIL", "552 Message size exceeds maximum permitted"),
        (".", "554 5.3.4 Message too big for system"),
        (".", "552 Message size exceeds maximum permitted"),
        (".", "552 5.7.0 This message was blocked because of its attachment"),
    ],
    ids=["Postfix", "Exim", "OpenSMTPD", "Exim without SIZE", "Gmail"],
)
def test_a_mail_that_is_too_large_goes_without_its_table(
    large: OutboundMail, script: Script, verb: str, refusal: str
) -> None:
    refusals = [refusal]
    script.answers[verb] = lambda _: refusals.pop() if refusals else "250 2.0.0 Ok"
    assert delivery.send_due() == 1
    (taken,) = script.taken
    assert b"was left out" in taken
    large.refresh_from_db()
    assert (large.state, large.delivered) == ("sent", large.recipients)


def test_a_mail_that_is_too_large_in_any_form_fails(large: OutboundMail, script: Script) -> None:
    script.answers["."] = "554 5.3.4 Message too big for system"
    assert delivery.send_due() == 0
    large.refresh_from_db()
    assert (large.state, large.smtp_code) == ("failed", 554)
    assert script.heard["DATA"] == len(Form)


def test_a_full_mailbox_is_no_mail_that_is_too_large(
    subscription: Subscription, relay: FakeRelay, clock: Clock
) -> None:
    relay.reply = "552 5.2.2 Mailbox full"
    outbox.enqueue(NOTICE, "occasion")
    delivery.send_due()
    assert OutboundMail.objects.get().smtp_code == 552
    assert len(relay.sessions) == 1
