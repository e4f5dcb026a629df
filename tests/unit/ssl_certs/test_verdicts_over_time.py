"""A worker that scans for hours: every scan is judged at its own time, whatever came before it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

import pki
from soc.alerts.models import Alert
from soc.ssl_certs import scan, verification
from soc.ssl_certs.models import Endpoint
from soc.trust import chain
from soc.trust.models import Authority

pytestmark = pytest.mark.django_db

MINUTE = timedelta(minutes=1)
ROOT = pki.issue("root", ca=True)


class Clock:
    """The time that the worker believes in."""

    def __init__(self) -> None:
        self.now = pki.NOW

    def at(self, minutes: float) -> None:
        self.now = pki.NOW + minutes * MINUTE

    def __call__(self) -> object:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timezone, "now", clock)
    return clock


class Peer:
    """A TLS server on loopback whose chain can be changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def present(self, *presented: pki.Issued) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*pki.write_server_files(self.folder, *presented))
        self.context = context

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.server.accept()
                with connection, contextlib.suppress(OSError):
                    self.context.wrap_socket(connection, server_side=True).close()


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    made = Peer(tmp_path)
    yield made
    # Closing alone would leave the accept that is under way listening.
    with contextlib.suppress(OSError):
        made.server.shutdown(socket.SHUT_RDWR)
    made.server.close()


@pytest.fixture
def endpoint(peer: Peer) -> Endpoint:
    authority = Authority.objects.create(name="test", pem=ROOT.cert_pem.decode())
    return Endpoint.objects.create(
        host="127.0.0.1", port=peer.port, server_name="peer.internal", authority=authority
    )


def leaf(issuer: pki.Issued = ROOT, since: float = -60, until: float = 90 * 24 * 60) -> pki.Issued:
    """Return a server's certificate; minutes from the test's start."""
    validity = {"not_before": pki.NOW + since * MINUTE, "not_after": pki.NOW + until * MINUTE}
    return pki.issue("peer.internal", issuer, san=["peer.internal"], **validity)


def outcome(endpoint: Endpoint) -> str:
    scan.scan([endpoint.pk])
    endpoint.refresh_from_db()
    return endpoint.outcome


def test_one_trust_store_judges_at_the_time_of_each_judgement() -> None:
    trust = chain.parse_trust(ROOT.cert_pem)
    young, old = leaf(since=10), leaf(until=10)

    def judged(minutes: float) -> tuple[str, str]:
        at = pki.NOW + minutes * MINUTE
        verdicts = [
            chain.verify([one.cert], name="peer.internal", trust=trust, at=at)
            for one in (young, old)
        ]
        return verdicts[0].result.value, verdicts[1].result.value

    before, after = ("not_yet_valid", "valid"), ("valid", "expired")
    assert [judged(n) for n in (5, 15, 5, 15)] == [before, after, before, after]


def test_two_hours_of_renewals_and_of_intermediates_that_end(
    endpoint: Endpoint, peer: Peer, clock: Clock
) -> None:
    ends = pki.NOW + 80 * MINUTE
    old = pki.issue("Issuing CA", ROOT, ca=True, not_after=ends)
    new = pki.issue("Issuing CA", ROOT, ca=True, key=old.key, not_before=pki.NOW + 90 * MINUTE)
    timeline = {
        0: ([leaf(until=25)], "valid"),
        20: (None, "valid"),
        30: (None, "expired"),
        40: ([leaf(since=35)], "valid"),
        50: ([leaf(since=55)], "not_yet_valid"),
        60: (None, "valid"),
        70: ([leaf(old, since=65), old], "valid"),
        85: (None, "expired"),
        95: ([leaf(old, since=65), new], "valid"),
        # What is presented in between and not used harms nothing.
        120: ([leaf(old, since=110), old, new], "valid"),
    }
    seen = {}
    for minutes, (presented, _) in timeline.items():
        if presented:
            peer.present(*presented)
        clock.at(minutes)
        seen[minutes] = outcome(endpoint)
    assert seen == {minutes: expected for minutes, (_, expected) in timeline.items()}


def test_a_person_who_asks_for_a_renewal_hears_of_one_that_is_minutes_old(
    endpoint: Endpoint, peer: Peer, clock: Clock
) -> None:
    peer.present(leaf(until=60))
    assert outcome(endpoint) == "valid"
    clock.at(30)
    peer.present(leaf(since=25))
    asked = verification.ask(endpoint, "ann")
    verification.verify(asked.pk)
    asked.refresh_from_db()
    assert asked.outcome == "renewed", asked.found


def test_the_end_of_an_intermediate_is_warned_of_before_it_comes(
    endpoint: Endpoint, peer: Peer, clock: Clock
) -> None:
    day = 24 * 60
    ends = pki.NOW + 60 * day * MINUTE
    middle = pki.issue("Issuing CA", ROOT, ca=True, not_after=ends)
    peer.present(leaf(middle, until=800 * day), middle)
    seen = []
    for days in (10, 31, 54, 59, 61):
        clock.at(days * day)
        outcome(endpoint)
        seen.append(endpoint.status)
        if endpoint.status != "ok":
            assert "depth 1, CN=Issuing CA" in endpoint.reason
    assert seen == ["ok", "warning", "error", "critical", "invalid"]


def test_the_certificate_at_fault_is_found_in_a_chain_in_disorder(
    endpoint: Endpoint, peer: Peer
) -> None:
    old = pki.issue("Issuing CA", ROOT, ca=True, not_after=pki.NOW - MINUTE)
    peer.present(leaf(old), ROOT, old)
    assert outcome(endpoint) == "expired"
    assert endpoint.fault_depth == 2


def test_an_endpoint_that_was_disabled_before_its_scan_has_no_alert(
    endpoint: Endpoint, peer: Peer
) -> None:
    peer.present(leaf(until=-5))
    keys = scan.claim_due()
    endpoint.enabled = False
    endpoint.save()
    scan.scan(keys)
    assert not Alert.objects.exists()
    endpoint.enabled = True
    endpoint.save()
    assert outcome(endpoint) == "expired"
    assert Alert.objects.get().state == "firing"
