"""A login that is refused for an hour, and a webhook that is down: what is still true goes out."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

import pki
import real_relays
from harness import wait_until_equal
from mailing import Clock, states
from real_relays import PORT, RealRelay
from receiver import Receiver, serve
from soc.alerts import engine
from soc.alerts.conditions import Condition
from soc.alerts.models import Alert, Rule
from soc.core.severity import Severity
from soc.notify import delivery, health, smtp
from soc.notify.models import Destination, OutboundMail, Subscription

pytestmark = [pytest.mark.drill, pytest.mark.django_db]

OPENED, RESOLVED = 200, 150
NAMED = re.compile(r"target-\d+")


@pytest.fixture
def exim() -> Iterator[RealRelay]:
    made = real_relays.start("Exim")
    yield made
    smtp.close()
    made.remove()


@pytest.fixture
def receiver(settings: Any, tmp_path: Path) -> Iterator[Receiver]:
    authority = pki.issue("site", ca=True)
    kept = tmp_path / "identity"
    kept.mkdir()
    (kept / "ca.pem").write_bytes(authority.cert_pem)
    (kept / "sealing_keys").write_bytes((settings.IDENTITY / "sealing_keys").read_bytes())
    (kept / "smtp_password").write_text("a password")
    settings.IDENTITY = kept
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    leaf = pki.issue("localhost", authority, san=["localhost"])
    context.load_cert_chain(*pki.write_server_files(tmp_path, leaf))
    with serve(context) as made:
        settings.WEBHOOK_HOSTS = [f"localhost:{made.port}"]
        settings.WEBHOOK_NETWORKS = ["127.0.0.0/8", "::1/128"]
        yield made


def report(numbers: range, severity: Severity, clock: Clock) -> None:
    engine.report(
        Condition("tests", "works", f"target-{number}", severity, clock.now, "It is silent.")
        for number in numbers
    )


def test_exactly_what_is_still_true_goes_out_after_an_hour(
    exim: RealRelay,
    receiver: Receiver,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The clock is moved; the relay's refusals and the webhook's are real."""
    clock = Clock(timezone.now())
    monkeypatch.setattr(timezone, "now", lambda: clock.now)
    monkeypatch.setattr(delivery.time, "sleep", lambda seconds: clock.move(seconds=seconds))
    exim.enter("unknown")
    settings.SMTP_HOST, settings.SMTP_PORT, settings.SMTP_SECURITY = exim.host, PORT, "none"
    settings.SMTP_USER, settings.MAIL_FROM = "soc", "soc@health.internal"
    Rule.objects.create(application="tests", name="works", description="It works")
    boss = "boss@health.internal"
    Subscription.objects.create(
        name="ops", recipients="ops@health.internal", fallback_recipients=boss
    )
    Subscription.objects.create(
        name="hook",
        channel="webhook",
        url=f"https://localhost:{receiver.port}/hook",
        url_host=f"localhost:{receiver.port}",
        secret="signs",
        fallback_recipients=boss,
    )
    receiver.status = 503
    for minute in range(60):
        if minute < 20:
            report(range(minute * 10, minute * 10 + 10), Severity.CRITICAL, clock)
        elif minute < 50:
            report(range((minute - 20) * 5, (minute - 20) * 5 + 5), Severity.OK, clock)
        delivery.send_due()
        clock.move(minutes=1)
    assert "535" in health.relay_state().error
    tries = health.relay_state().failures
    tried = len(receiver.heard)
    assert (exim.copies().total(), receiver.taken) == (0, [])
    exim.enter("open")
    settings.SMTP_HOST, receiver.status = exim.host, 200
    for _ in range(10):
        delivery.send_due()
        clock.move(minutes=1)
    wait_until_equal("the mails", lambda: exim.copies().total(), states_of("email"))
    mailed = [name for mail in exim.mails() for name in told_by(body_of(mail))]
    posted = [name for *_, body in receiver.taken for name in told_by(json.loads(body)["text"])]
    still_true = {f"target-{number}" for number in range(RESOLVED, OPENED)}
    with capsys.disabled():
        print(
            f"\n{exim.version()}, login refused for an hour ({tries} probes), webhook down "
            f"({tried} tries): {OPENED} opened, {RESOLVED} resolved; by mail {len(mailed)} of "
            f"{len(still_true)} in {exim.copies().total()} mails, by webhook {len(posted)} in "
            f"{len(receiver.taken)} messages; {states()}"
        )
    assert Alert.objects.count() == OPENED
    assert set(mailed) == set(posted) == still_true
    assert len(mailed) == len(posted) == OPENED - RESOLVED
    assert health.relay_state() == health.RelayState()
    assert not Destination.objects.filter(down_since__isnull=False).exists()
    assert not {"queued", "failed", "expired"} & states().keys()


def states_of(channel: str) -> int:
    return OutboundMail.objects.filter(channel=channel, state="sent").count()


def body_of(mail: Message) -> str:
    (part,) = [p for p in mail.walk() if p.get_content_type() == "text/plain"]
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.decode()


def told_by(text: str) -> list[str]:
    """Return the targets that a text names, each once for a line that begins an alert."""
    return sorted(set(NAMED.findall(text)))
