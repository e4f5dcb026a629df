"""TLS to the relay: it is verified, from the first byte or by STARTTLS."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller

import pki
from mailing import NOTICE, FakeRelay, free_port
from soc.notify import delivery, health, outbox, smtp
from soc.notify.models import Subscription

pytestmark = pytest.mark.django_db


@pytest.fixture
def authority(settings: Any, tmp_path: Path) -> pki.Issued:
    """The site's own authority, in the folder of a worker."""
    authority = pki.issue("site", ca=True)
    (tmp_path / "ca.pem").write_bytes(authority.cert_pem)
    settings.IDENTITY = tmp_path
    return authority


@pytest.fixture(params=["tls", "starttls"])
def serve(request: pytest.FixtureRequest, settings: Any, tmp_path: Path) -> Iterator[Any]:
    controllers: list[Controller] = []

    def start(leaf: pki.Issued) -> FakeRelay:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*pki.write_server_files(tmp_path, leaf))
        relay, port = FakeRelay(), free_port()
        options: dict[str, Any] = {"ssl_context": context}
        if request.param == "starttls":
            options = {"tls_context": context, "require_starttls": True}
        controller = Controller(relay, hostname="127.0.0.1", port=port, **options)
        controller.start()
        controllers.append(controller)
        settings.SMTP_HOST, settings.SMTP_PORT = "localhost", port
        settings.SMTP_SECURITY = request.param
        return relay

    yield start
    smtp.close()
    for controller in controllers:
        controller.stop()


def test_mail_goes_out_over_verified_tls(
    serve: Any, authority: pki.Issued, subscription: Subscription
) -> None:
    relay = serve(pki.issue("localhost", authority, san=["localhost"]))
    outbox.enqueue(NOTICE, "one")
    outbox.enqueue(NOTICE, "two")
    assert delivery.send_due() == 2
    assert len(relay.sessions) == 1


@pytest.mark.parametrize("trouble", ["another name", "another authority", "expired"])
def test_a_relay_that_cannot_prove_its_name_gets_no_mail(
    serve: Any, authority: pki.Issued, subscription: Subscription, trouble: str
) -> None:
    names = ["elsewhere"] if trouble == "another name" else ["localhost"]
    issuer = pki.issue("site", ca=True) if trouble == "another authority" else authority
    end = pki.NOW - pki.DAY if trouble == "expired" else pki.NOW + pki.DAY
    leaf = pki.issue(names[0], issuer, san=names, not_before=pki.NOW - 9 * pki.DAY, not_after=end)
    relay = serve(leaf)
    outbox.enqueue(NOTICE, "occasion")
    assert delivery.send_due() == 0
    assert relay.mails == []
    assert "certificate verify failed" in health.relay_state().error
