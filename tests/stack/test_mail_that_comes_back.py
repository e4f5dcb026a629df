"""Postfix and Exim send mail back to a mailbox at Dovecot, which the site reads by IMAP."""

from __future__ import annotations

import ipaddress
import smtplib
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from imapclient.exceptions import LoginError

import real_relays
from harness import new_name, run, wait_until_equal
from mailing import Clock
from pki import issue
from real_relays import PACKAGES, PORT, RealRelay
from soc.notify import bounces, delivery, outbox, smtp
from soc.notify.models import Bounce, OutboundMail, Subscription
from soc.notify.templates import SAMPLE

pytestmark = pytest.mark.django_db

PASSWORD = "reads what comes back"
DOVECOT = f"""
dovecot_config_version = 2.4.1
dovecot_storage_version = 2.4.1
log_path = /tmp/dovecot.log
protocols = imap
ssl = required
ssl_server_cert_file = /site/cert.pem
ssl_server_key_file = /site/key.pem
mail_driver = mbox
mail_path = /tmp/mail
mail_inbox_path = /box/all
mail_uid = vmail
mail_gid = vmail
passdb static {{
  password = {PASSWORD}
}}
userdb static {{
}}
"""


WORDS = {"Postfix": "unknown user", "Exim": "status 5.0.0"}
"""What each says of it in the fields; Exim has the rest in the text for people."""


@pytest.fixture(params=WORDS)
def relay(request: pytest.FixtureRequest, settings: Any, tmp_path: Path) -> Iterator[RealRelay]:
    """A relay that takes all mail, and sends back what is for gone@…"""
    image = real_relays.image_with(f"{PACKAGES[request.param]} dovecot-imapd")
    relay = RealRelay(request.param, f"soc-{new_name()}-relay")
    start = ("sh", "-c", "echo bounce >/mode; exec start")
    run("docker", "run", "--detach", f"--name={relay.container}", image, *start)
    relay.wait()
    address = x509.IPAddress(ipaddress.ip_address(relay.host))
    server = issue("dovecot", san=[address])
    for name, octets in (
        ("cert.pem", server.cert_pem),
        ("key.pem", server.key_pem),
        ("ca.pem", server.cert_pem),
        ("dovecot.conf", DOVECOT.encode()),
        ("imap_password", PASSWORD.encode()),
    ):
        (tmp_path / name).write_bytes(octets)
    run("docker", "cp", f"{tmp_path}/.", f"{relay.container}:/site")
    run("docker", "exec", relay.container, "dovecot", "-c", "/site/dovecot.conf")
    settings.IDENTITY = tmp_path
    settings.SMTP_HOST, settings.SMTP_PORT, settings.SMTP_SECURITY = relay.host, PORT, "none"
    settings.MAIL_FROM, settings.SMTP_HELO = "soc@health.internal", "soc.health.internal"
    settings.BOUNCE_IMAP_HOST = relay.host
    settings.BOUNCE_IMAP_USER = "soc@health.internal"
    yield relay
    smtp.close()
    relay.remove()


def reply_automatically(relay: RealRelay, mail: OutboundMail) -> None:
    """Answer a mail as a person's mailbox does who is away (RFC 3834)."""
    reply = EmailMessage()
    reply["From"], reply["To"] = "here@health.internal", "soc@health.internal"
    reply["Subject"] = f"Automatic reply: {mail.subject}"
    reply["In-Reply-To"] = mail.message_id
    reply["Auto-Submitted"] = "auto-replied"
    reply.set_content("I am away until Monday. <here@health.internal>: user unknown")
    with smtplib.SMTP(relay.host, PORT) as session:
        session.send_message(reply)


def test_what_comes_back_marks_its_recipient_and_an_automatic_reply_does_not(
    relay: RealRelay, clock: Clock, settings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    recipients = "here@health.internal\ngone@health.internal"
    Subscription.objects.create(name="ops", recipients=recipients)
    Subscription.objects.create(
        name="duty", recipients="gone@health.internal", fallback_recipients="here@health.internal"
    )
    outbox.enqueue(SAMPLE, "occasion")
    assert delivery.send_due() == 2, "the relay takes all of it"
    both, one = (OutboundMail.objects.get(subscription__name=name) for name in ("ops", "duty"))
    reply_automatically(relay, both)
    # Two reports, the reply, and the copy of the recipient who is there.
    wait_until_equal("what is filed", lambda: len(relay.mails()), 4)
    assert bounces.collect() == 2
    both.refresh_from_db()
    one.refresh_from_db()
    assert (both.state, both.delivered) == ("sent", ["here@health.internal"])
    assert (one.state, one.delivered) == ("failed", [])
    marked = Bounce.objects.get()
    assert marked.address == "gone@health.internal"
    with capsys.disabled():
        print(f"\n{relay.version()}: {marked.words}")
    assert WORDS[relay.software] in marked.words
    # What was read is not read again, and the fallback recipient gets a copy.
    assert bounces.collect() == 0
    assert delivery.send_due() == 1
    copy = OutboundMail.objects.get(fallback_of=one)
    assert (copy.state, copy.delivered) == ("sent", ["here@health.internal"])
    (settings.IDENTITY / "imap_password").write_text("another")
    with pytest.raises(LoginError):
        bounces.collect()
