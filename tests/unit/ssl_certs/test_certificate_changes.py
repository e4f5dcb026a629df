"""What scans make of another certificate, pins, questions about renewals, and searches."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import pki
from soc.ssl_certs import probe, scan, searches, verification
from soc.ssl_certs.models import Change, Endpoint, Search, Verification
from soc.ssl_certs.targets import Target
from soc.trust.models import Authority

pytestmark = pytest.mark.django_db

NAME = "peer.internal"
ROOT = pki.issue("root", ca=True)
OTHER = pki.issue("other root", ca=True)


class Peer:
    """A TLS server on every loopback address, whose certificate can be changed by address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = socket.create_server(("0.0.0.0", 0))
        self.port = self.server.getsockname()[1]
        self.contexts: dict[str, ssl.SSLContext] = {}
        threading.Thread(target=self._accept, daemon=True).start()

    def present(self, leaf: pki.Issued, at: str = "127.0.0.1") -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*pki.write_server_files(self.folder, leaf))
        self.contexts[at] = context

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.server.accept()
                context = self.contexts.get(connection.getsockname()[0])
                with connection, contextlib.suppress(OSError):
                    if context:
                        context.wrap_socket(connection, server_side=True).close()


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    made = Peer(tmp_path)
    yield made
    with contextlib.suppress(OSError):
        made.server.shutdown(socket.SHUT_RDWR)
    made.server.close()


@pytest.fixture
def endpoint(peer: Peer) -> Endpoint:
    pem = (ROOT.cert_pem + OTHER.cert_pem).decode()
    authority = Authority.objects.create(name="test", pem=pem)
    return Endpoint.objects.create(
        host="127.0.0.1", port=peer.port, server_name=NAME, authority=authority
    )


def leaf(days: float = 100, issuer: pki.Issued = ROOT, **options: object) -> pki.Issued:
    options = {"san": [NAME], "not_after": pki.NOW + days * pki.DAY, **options}
    return pki.issue(NAME, issuer, **options)


def scanned(endpoint: Endpoint) -> Endpoint:
    scan.scan([endpoint.pk])
    endpoint.refresh_from_db()
    return endpoint


def test_every_other_certificate_is_a_change_of_some_kind(peer: Peer, endpoint: Endpoint) -> None:
    first = leaf(20)
    for issued in (first, first, leaf(100), first, leaf(20), leaf(300, OTHER, san=["new", NAME])):
        peer.present(issued)
        scanned(endpoint)
    changes = list(Change.objects.order_by("pk"))
    assert [change.kind for change in changes] == ["first", "renewed", "back", "replaced", "issuer"]
    assert "Issuer: CN=other root instead of CN=root." in changes[-1].text
    assert "Now also for new." in changes[-1].text
    assert changes[-1].before == changes[-2].after


def test_the_whole_chain_is_kept(peer: Peer, endpoint: Endpoint) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    middle = pki.issue("middle", ROOT, ca=True, not_after=pki.NOW - pki.DAY / 2)
    own = leaf(100, middle)
    context.load_cert_chain(*pki.write_server_files(peer.folder, own, middle))
    peer.contexts["127.0.0.1"] = context
    assert scanned(endpoint).outcome == "expired"
    assert len(endpoint.chain) == 2
    assert endpoint.fault_depth == 1
    assert "(depth 1, CN=middle) expired" in endpoint.reason


def test_what_is_not_as_it_was_pinned_is_not_valid(peer: Peer, endpoint: Endpoint) -> None:
    peer.present(leaf())
    scanned(endpoint)
    pinned = endpoint.certificate.fingerprint
    colons = ":".join(pinned[n : n + 2] for n in range(0, 64, 2)).lower()
    for values, outcome in (
        ({"pinned": colons, "expected_issuer": "ROOT"}, "valid"),
        ({"pinned": f"{'0' * 64}, {pinned}"}, "valid"),
        ({"pinned": "0" * 64}, "unexpected"),
        ({"pinned": "", "expected_issuer": "other root"}, "unexpected"),
    ):
        Endpoint.objects.update(**values)
        assert scanned(endpoint).outcome == outcome
    assert endpoint.status == "invalid"
    assert "where other root is expected" in endpoint.reason


def test_an_endpoint_that_became_another_one_during_its_scan_keeps_nothing(
    peer: Peer, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer.present(leaf())
    read = scan._read

    def edit_after(keys: list[int]) -> dict[int, Endpoint]:
        found = read(keys)
        Endpoint.objects.update(server_name="elsewhere.internal")
        return found

    monkeypatch.setattr(scan, "_read", edit_after)
    assert scanned(endpoint).status == "unknown"
    monkeypatch.setattr(scan, "_read", read)
    endpoint.delete()
    scan.scan([endpoint.pk])
    assert not Endpoint.objects.exists()


# --- Verify renewal now -------------------------------------------------------------------------


BEFORE = pki.NOW - 80 * pki.DAY


@pytest.fixture
def two_addresses(peer: Peer, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the endpoint a name that leads to two addresses."""
    Endpoint.objects.update(host="two.internal")
    endpoint.refresh_from_db()
    found = [(socket.AF_INET, (address, peer.port)) for address in ("127.0.0.1", "127.0.0.2")]
    resolve = probe.resolve

    async def answer(target: Target) -> list[object]:
        return found if target.host == "two.internal" else await resolve(target)

    monkeypatch.setattr(probe, "resolve", answer)


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [
        (leaf(100), leaf(100), "renewed"),
        (leaf(100), None, "partly"),
        (leaf(100), leaf(5, not_before=BEFORE), "partly"),
        (leaf(5, not_before=BEFORE), leaf(5, not_before=BEFORE), "not_yet"),
        (leaf(100), leaf(100, san=["elsewhere"]), "invalid"),
        (None, None, "unreachable"),
    ],
)
def test_a_renewal_is_looked_for_on_every_address(
    peer: Peer,
    endpoint: Endpoint,
    two_addresses: None,
    first: pki.Issued | None,
    second: pki.Issued | None,
    outcome: str,
) -> None:
    peer.present(leaf(6, not_before=BEFORE))
    scanned(endpoint)
    peer.contexts.clear()
    for address, issued in (("127.0.0.1", first), ("127.0.0.2", second)):
        if issued:
            peer.present(issued, at=address)
    asked = verification.ask(endpoint, "ann")
    verification.verify(asked.pk)
    answer = Verification.objects.get()
    assert answer.outcome == outcome
    assert [one["address"] for one in answer.found] == ["127.0.0.1", "127.0.0.2"]
    finished = answer.finished_at
    verification.verify(asked.pk)
    assert Verification.objects.get().finished_at == finished


# --- Searches -----------------------------------------------------------------------------------


def test_a_search_watches_what_presents_a_certificate(peer: Peer, endpoint: Endpoint) -> None:
    peer.present(leaf())
    peer.present(leaf(san=["*.wild.internal", "b.internal"]), at="127.0.0.2")
    peer.present(leaf(san=["127.0.0.3"]), at="127.0.0.3")
    targets = [[f"127.0.0.{n}", peer.port] for n in range(1, 6)]
    asked = Search(ranges="127.0.0.0/29", targets=targets, requested_by="ann")
    searches.ask(asked)
    searches.search(asked.pk)
    asked.refresh_from_db()
    assert (asked.answered, asked.added) == (3, 2)
    found = Endpoint.objects.exclude(pk=endpoint.pk).order_by("host")
    assert list(found.values_list("host", "server_name")) == [
        ("127.0.0.2", "b.internal"), ("127.0.0.3", ""),
    ]  # fmt: skip
    searches.search(asked.pk)
    assert Endpoint.objects.count() == 3
