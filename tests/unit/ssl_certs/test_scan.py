"""Scans that are due, what they record, and which alerts follow; against real TLS peers."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.core.exceptions import ValidationError
from django.urls import reverse
from django.utils import timezone

import pki
from soc.alerts.models import Alert
from soc.notify.models import OutboundMail, Subscription
from soc.ssl_certs import scan, store, tasks
from soc.ssl_certs.models import Certificate, Endpoint, Group, Observation
from soc.trust.description import describe
from soc.trust.models import Authority

pytestmark = pytest.mark.django_db

DAY = timedelta(days=1)


@pytest.fixture
def root() -> pki.Issued:
    return pki.issue("root", ca=True)


@pytest.fixture
def authority(root: pki.Issued) -> Authority:
    return Authority.objects.create(name="test", pem=root.cert_pem.decode())


class Peer:
    """A TLS server on loopback whose certificate can be changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def present(self, leaf: pki.Issued) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*pki.write_server_files(self.folder, leaf))
        self.context = context

    def stop(self) -> None:
        # Closing alone would leave the accept that is under way listening.
        with contextlib.suppress(OSError):
            self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            try:
                self.context.wrap_socket(connection, server_side=True).close()
            except OSError:
                connection.close()


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    made = Peer(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def endpoint(peer: Peer, authority: Authority) -> Endpoint:
    return Endpoint.objects.create(
        host="127.0.0.1", port=peer.port, server_name="peer.internal", authority=authority
    )


def leaf(root: pki.Issued, days: float) -> pki.Issued:
    return pki.issue("peer.internal", root, san=["peer.internal"], not_after=pki.NOW + days * DAY)


def scanned(endpoint: Endpoint) -> Endpoint:
    scan.scan([endpoint.pk])
    endpoint.refresh_from_db()
    return endpoint


@pytest.mark.parametrize(
    ("lifetime", "days", "status"),
    [
        *((398, 31, "ok"), (398, 29, "warning"), (398, 6.9, "error"), (398, 1.9, "critical")),
        *((47, 16, "ok"), (47, 15, "warning"), (47, 4.6, "error"), (47, 1.9, "critical")),
        *((6, 2.1, "ok"), (6, 1.9, "warning"), (6, 0.5, "error"), (6, 0.2, "critical")),
        (90, -0.01, "invalid"),
    ],
)
def test_the_days_left_or_their_share_of_the_lifetime_make_the_status(
    endpoint: Endpoint, peer: Peer, root: pki.Issued, lifetime: int, days: float, status: str
) -> None:
    end = pki.NOW + days * DAY
    names = {"san": ["peer.internal"]}
    peer.present(
        pki.issue("peer.internal", root, not_before=end - lifetime * DAY, not_after=end, **names)
    )
    assert scanned(endpoint).status == status
    assert endpoint.certificate.san == ["peer.internal"]


def test_an_observation_and_its_certificate_are_recorded(
    endpoint: Endpoint, peer: Peer, root: pki.Issued
) -> None:
    peer.present(leaf(root, 100))
    scan.scan([endpoint.pk])
    observation = Observation.objects.get()
    assert observation.outcome == "valid"
    assert observation.tls_version == "TLSv1.3"
    assert observation.address == "127.0.0.1"
    assert observation.chain_length == 1
    certificate = Certificate.objects.get()
    assert certificate.subject == "CN=peer.internal"
    assert certificate.issuer == "CN=root"
    assert "BEGIN CERTIFICATE" in certificate.pem


def test_a_scan_that_finds_nothing_new_is_written_down_once_a_day(
    endpoint: Endpoint, peer: Peer, root: pki.Issued
) -> None:
    peer.present(leaf(root, 100))
    since = scanned(endpoint).status_since
    for _ in range(3):
        assert scanned(endpoint).status_since == since
    assert (endpoint.scans, Observation.objects.count()) == (4, 1)
    Endpoint.objects.update(observed_at=timezone.now() - store.AT_LEAST_EVERY)
    scanned(endpoint)
    assert (Observation.objects.count(), Certificate.objects.count()) == (2, 1)


def test_a_certificate_that_fails_verification_is_kept_with_the_reason(
    endpoint: Endpoint, peer: Peer
) -> None:
    peer.present(pki.issue("peer.internal", san=["peer.internal"]))
    assert scanned(endpoint).status == Endpoint.Status.INVALID
    assert "self-signed" in endpoint.reason
    assert endpoint.certificate.issuer == "CN=peer.internal"


def test_the_system_store_is_the_default(endpoint: Endpoint, peer: Peer, root: pki.Issued) -> None:
    Endpoint.objects.update(authority=None)
    peer.present(leaf(root, 100))
    assert scanned(endpoint).status == Endpoint.Status.INVALID
    assert endpoint.observations.get().outcome == "unknown_issuer"


def test_one_failure_is_tried_again_soon_and_two_are_unreachable(
    endpoint: Endpoint, peer: Peer
) -> None:
    peer.stop()
    assert scanned(endpoint).status == Endpoint.Status.UNKNOWN
    assert endpoint.next_scan_at <= timezone.now() + store.RETRY
    assert scanned(endpoint).status == Endpoint.Status.UNREACHABLE
    assert "nothing listens there" in endpoint.reason


def test_an_endpoint_that_comes_back_is_well_again(
    endpoint: Endpoint, peer: Peer, root: pki.Issued
) -> None:
    Endpoint.objects.update(failures=5, status=Endpoint.Status.UNREACHABLE)
    endpoint.refresh_from_db()
    peer.present(leaf(root, 100))
    assert scanned(endpoint).status == Endpoint.Status.OK
    assert endpoint.failures == 0


def test_due_endpoints_are_claimed_once(endpoint: Endpoint, authority: Authority) -> None:
    Endpoint.objects.create(host="disabled.internal", enabled=False)
    Endpoint.objects.create(host="later.internal", next_scan_at=timezone.now() + DAY / 48)
    assert scan.claim_due() == [endpoint.pk]
    assert scan.claim_due() == []


def test_an_endpoint_whose_scan_was_lost_falls_due_again(endpoint: Endpoint) -> None:
    scan.claim_due()
    endpoint.refresh_from_db()
    assert endpoint.next_scan_at <= timezone.now() + scan.CLAIM


def test_a_scanned_endpoint_is_due_after_its_interval(
    endpoint: Endpoint, peer: Peer, root: pki.Issued
) -> None:
    peer.present(leaf(root, 100))
    due = scanned(endpoint).next_scan_at
    assert timedelta(minutes=53) < due - timezone.now() <= endpoint.interval


def test_a_tick_claims_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "MOST_AT_ONCE", 10)
    Endpoint.objects.bulk_create(Endpoint(host=f"h{n}.internal") for n in range(25))
    assert [len(scan.claim_due()) for _ in range(4)] == [10, 10, 5, 0]


def test_ten_thousand_due_endpoints_make_a_few_messages_a_tick(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Endpoint.objects.bulk_create((Endpoint(host=f"h{n}") for n in range(10_000)), batch_size=1000)
    sent: list[list[int]] = []
    monkeypatch.setattr(tasks.scan_batch, "apply_async", lambda args, **_: sent.append(args[0]))
    assert [tasks.scan_due() for _ in range(11)] == [1000] * 10 + [0]
    assert [len(keys) for keys in sent] == [500] * 20
    assert len({key for keys in sent for key in keys}) == 10_000


def test_scans_that_began_together_come_apart(root: pki.Issued, peer: Peer) -> None:
    peer.present(leaf(root, 100))
    endpoints = [
        Endpoint.objects.create(host="127.0.0.1", port=peer.port, server_name=f"s{n}.internal")
        for n in range(20)
    ]
    scan.scan([one.pk for one in endpoints])
    due = Endpoint.objects.values_list("next_scan_at", flat=True)
    assert max(due) - min(due) > timedelta(minutes=1)


def test_an_endpoint_whose_trust_store_is_gone_says_so(
    endpoint: Endpoint, peer: Peer, root: pki.Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer.present(leaf(root, 100))
    Endpoint.objects.update(authority=None)
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere.pem")
    assert scanned(endpoint).outcome == "defect"
    assert "install one or name it" in endpoint.observations.get().detail


def test_a_scan_that_runs_out_of_time_is_recorded(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(_: list[int]) -> None:
        raise SoftTimeLimitExceeded

    monkeypatch.setattr(scan, "scan", hang)
    tasks.scan_endpoint(endpoint.pk)
    assert endpoint.observations.get().outcome == "timeout"


def test_a_scan_of_a_deleted_endpoint_does_nothing() -> None:
    tasks.scan_endpoint(4711)
    assert not Observation.objects.exists()


def test_an_endpoint_in_trouble_has_an_alert_that_follows_it(
    endpoint: Endpoint, peer: Peer, root: pki.Issued
) -> None:
    Subscription.objects.create(name="ops", recipients="a@health.internal")
    days_alone = dict.fromkeys(("critical_share", "error_share", "warning_share"), 100)
    Endpoint.objects.update(group=Group.objects.create(name="by hand", **days_alone))
    for days, mails in ((20, 1), (20, 0), (3, 1), (300, 0)):
        peer.present(leaf(root, days))
        assert scan.scan([endpoint.pk]) == mails
    alert = Alert.objects.get()
    kinds = list(alert.events.values_list("kind", flat=True))
    assert kinds == ["fired", "worse", "resolved"]
    assert alert.link == reverse("endpoint", args=[endpoint.pk])
    assert alert.facts["Subject of the certificate"] == "CN=peer.internal"
    warning = OutboundMail.objects.order_by("created_at")[0]
    assert warning.subject.startswith(f"WARNING: {endpoint}: It expires in 19 days")


def test_an_endpoint_that_is_not_reached_twice_has_an_alert(endpoint: Endpoint, peer: Peer) -> None:
    peer.stop()
    for state in ("pending", "firing"):
        scanned(endpoint)
        assert Alert.objects.get().state == state
    assert str(Alert.objects.get().rule) == "ssl_certs/reachable"


@pytest.mark.parametrize("what", ["disabled", "renamed", "deleted"])
def test_what_is_no_longer_watched_has_no_alert(
    endpoint: Endpoint, peer: Peer, root: pki.Issued, what: str
) -> None:
    peer.present(leaf(root, -0.01))
    scanned(endpoint)
    assert Alert.objects.get().state == "firing"
    if what == "deleted":
        endpoint.delete()
    else:
        endpoint.enabled = what != "disabled"
        endpoint.port += what == "renamed"
        endpoint.save()
    assert Alert.objects.get().state == "resolved"


def test_an_edit_leaves_an_alert_alone(endpoint: Endpoint, peer: Peer, root: pki.Issued) -> None:
    peer.present(leaf(root, -0.01))
    scanned(endpoint).save()
    assert Alert.objects.get().state == "firing"


def test_an_authority_needs_certificates() -> None:
    with pytest.raises(ValidationError):
        Authority(name="empty", pem="no certificate").full_clean()


@pytest.mark.parametrize("where", [(store.Judge, "verify"), (store, "_settle")])
def test_an_endpoint_that_finds_a_defect_costs_no_other_its_scan(
    peer: Peer,
    authority: Authority,
    root: pki.Issued,
    monkeypatch: pytest.MonkeyPatch,
    where: tuple[object, str],
) -> None:
    peer.present(leaf(root, 100))
    common = {"host": "127.0.0.1", "port": peer.port, "authority": authority}
    names = ("odd.internal", "peer.internal", "other.internal")
    odd, good, other = (Endpoint.objects.create(server_name=name, **common) for name in names)
    real = getattr(*where)

    def failing(*args: object) -> object:
        if str(odd) in map(str, args):
            raise OverflowError("date value out of range")
        return real(*args)

    monkeypatch.setattr(*where, failing)
    scan.scan([odd.pk, good.pk, other.pk])
    outcomes = Endpoint.objects.in_bulk()
    assert outcomes[good.pk].outcome == "valid"
    assert outcomes[other.pk].outcome == "name_mismatch"
    assert outcomes[odd.pk].outcome == ("defect" if where[1] == "verify" else "")


def test_what_a_certificate_says_fits_its_columns(
    root: pki.Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    issued = leaf(root, 100)
    long = replace(describe(issued.cert), serial="F" * 400, signature="1.2." * 40)
    monkeypatch.setattr(store, "describe", lambda _: long)
    store._described(issued.cert).clean_fields(exclude=["san", "problems"])
