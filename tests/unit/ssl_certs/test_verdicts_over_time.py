"""A worker that scans for hours: every scan is judged at its own time, whatever came before it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import groupby
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from django.utils import timezone

import pki
from soc.alerts.models import Alert
from soc.ssl_certs import scan, verification
from soc.ssl_certs.models import Endpoint
from soc.trust import chain, crls
from soc.trust.models import Authority, RevocationList

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

    def close(self) -> None:
        # Closing alone would leave the accept that is under way listening.
        with contextlib.suppress(OSError):
            self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    with contextlib.closing(Peer(tmp_path)) as made:
        yield made


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


HOUR = 60
DAYS_OF_DRILL = 3


class Publisher:
    """A CA's web server: signs a new CRL, good for four hours, on every request."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.revoked: list[int] = []
        self.signer = ROOT
        self.serves = True
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if publisher.serves else 503)
                self.end_headers()
                self.wfile.write(publisher.signed() if publisher.serves else b"")

            def log_message(self, *_: object) -> None:
                pass

        self.httpd = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.httpd.server_port}/ca.crl"
        threading.Thread(target=self.httpd.serve_forever, daemon=True).start()

    def signed(self) -> bytes:
        now = self.clock.now
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.signer.cert.subject)
            .last_update(now)
            .next_update(now + 4 * HOUR * MINUTE)
        )
        for serial in self.revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self.signer.key, hashes.SHA256()).public_bytes(Encoding.DER)

    def close(self) -> None:
        self.httpd.shutdown()
        self.httpd.server_close()


def accused(serial: int, clock: Clock) -> bool:
    """Return whether the stored CRL, read by itself, is current and names the certificate."""
    body = RevocationList.objects.exclude(fetched_at=None).values_list("body", flat=True).first()
    if body is None:
        return False
    stored = x509.load_der_x509_crl(bytes(body))
    assert stored.next_update_utc
    # Good at its last second, as certificates are (RFC 5280, 4.1.2.5).
    current = stored.next_update_utc >= clock.now
    return current and stored.get_revoked_certificate_by_serial_number(serial) is not None


class Site:
    """One endpoint of the drill, and what is expected of it at each scan."""

    def __init__(self, name: str, folder: Path, authority: Authority) -> None:
        folder.mkdir()
        self.name, self.peer = name, Peer(folder)
        self.endpoint = Endpoint.objects.create(
            host="127.0.0.1",
            port=self.peer.port,
            server_name="peer.internal",
            authority=authority,
        )
        self.rows: list[tuple[int, str, str]] = []

    def scan(self, minutes: int, expected: str) -> None:
        self.rows.append((minutes, expected, outcome(self.endpoint)))

    def table(self) -> Iterator[str]:
        for (expected, seen), rows in groupby(self.rows, key=lambda row: row[1:]):
            times = [minutes / HOUR for minutes, _, _ in rows]
            span = f"{times[0]:5.1f} to {times[-1]:5.1f} h"
            yield f"{self.name:14}{span}{len(times):5} scans  {expected:14}{seen:14}"


@pytest.mark.drill
def test_three_days_of_one_worker(clock: Clock, tmp_path: Path) -> None:
    """Scans every half hour; the verdict of each is derived from what happened until then."""
    authority = Authority.objects.create(name="drill", pem=ROOT.cert_pem.decode())
    end = DAYS_OF_DRILL * 24 * HOUR
    renewals, middles, revocations = (
        Site(name, tmp_path / name, authority) for name in ("renewed", "intermediate", "revoked")
    )
    with contextlib.ExitStack() as stack:
        for site in (renewals, middles, revocations):
            stack.enter_context(contextlib.closing(site.peer))
        publisher = stack.enter_context(contextlib.closing(Publisher(clock)))
        named = x509.DistributionPoint(
            [x509.UniformResourceIdentifier(publisher.url)], None, None, None
        )

        def with_list(since: int) -> pki.Issued:
            return pki.issue(
                "peer.internal",
                ROOT,
                san=["peer.internal"],
                not_before=pki.NOW + (since - 5) * MINUTE,
                extensions=[(x509.CRLDistributionPoints([named]), False)],
            )

        issuer = pki.issue("Issuing CA", ROOT, ca=True, not_after=pki.NOW + 40 * HOUR * MINUTE)
        middles.peer.present(leaf(issuer), issuer)
        listed = with_list(0)
        revocations.peer.present(listed)
        renewed_at = 0
        for minutes in range(0, end, 30):
            clock.at(minutes)
            # Renewed every six hours for eight; the renewal of the 24th hour fails.
            if minutes % (6 * HOUR) == 0 and minutes != 24 * HOUR:
                renewed_at = minutes
                renewals.peer.present(leaf(since=minutes - 5, until=minutes + 8 * HOUR + 1))
            renewals.scan(minutes, "valid" if minutes - renewed_at <= 8 * HOUR else "expired")
            # The intermediate ends in the 40th hour; its successor has the same name and key.
            if minutes == 44 * HOUR:
                successor = pki.issue("Issuing CA", ROOT, ca=True, key=issuer.key)
                middles.peer.present(leaf(issuer), successor)
            ended = 40 * HOUR <= minutes < 44 * HOUR
            middles.scan(minutes, "expired" if ended and minutes > 40 * HOUR else "valid")
            # Revoked in the 10th hour and replaced in the 20th; the second revoked in the 30th,
            # and from the 40th hour on nobody publishes lists: the last one ends.
            if minutes in (10 * HOUR, 30 * HOUR):
                publisher.revoked.append(listed.cert.serial_number)
            if minutes == 20 * HOUR:
                listed = with_list(minutes)
                revocations.peer.present(listed)
            publisher.serves = not 40 * HOUR <= minutes < 56 * HOUR
            crls.fetch_due()
            known = accused(listed.cert.serial_number, clock)
            revocations.scan(minutes, "revoked" if known else "valid")
            if minutes in (12 * HOUR, 32 * HOUR, 58 * HOUR):
                assert known, "a list is two hours old at most while somebody publishes"
    sites = (renewals, middles, revocations)
    print(f"\n{'endpoint':14}{'simulated time':27}  {'expected':14}seen")
    print("\n".join(line for site in sites for line in site.table()))
    wrong = [(site.name, row) for site in sites for row in site.rows if row[1] != row[2]]
    assert not wrong
    assert {row[1] for row in revocations.rows} == {"valid", "revoked"}
