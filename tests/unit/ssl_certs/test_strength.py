"""Weak keys, hashes and lifetimes."""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from django.utils import timezone

import pki
from soc.alerts.models import Alert
from soc.core.severity import Severity
from soc.ssl_certs import store, strength
from soc.ssl_certs.models import Endpoint, Group
from soc.ssl_certs.policies import StrengthLimits
from soc.ssl_certs.probe import Presented
from soc.trust import chain
from soc.trust.models import Authority

HOST = "www.example.org"
ROOT = pki.issue("Root", ca=True)
SMALL_ROOT = pki.issue("Small Root", ca=True, key=rsa.generate_private_key(65537, 1024))
SPRING = dt.datetime(2026, 3, 15, tzinfo=dt.UTC)


def leaf(issuer: pki.Issued = ROOT, **options: object) -> pki.Issued:
    return pki.issue(HOST, issuer, **{"san": [HOST], **options})


def lasting(days: int, since: dt.datetime = SPRING) -> pki.Issued:
    return leaf(not_before=since, not_after=since + days * pki.DAY)


CASES: dict[str, tuple[Callable[[], list[pki.Issued]], str, str]] = {
    "nothing": (lambda: [leaf(), ROOT], "TLSv1.3", ""),
    "RSA 2048": (lambda: [leaf(key=rsa.generate_private_key(65537, 2048))], "TLSv1.2", ""),
    "RSA 1024": (
        lambda: [leaf(key=rsa.generate_private_key(65537, 1024)), ROOT],
        *("TLSv1.3", "weak key (RSA 1024)"),
    ),
    "anchor of RSA 1024": (
        lambda: [leaf(SMALL_ROOT), SMALL_ROOT],
        *("TLSv1.3", "CA certificate (depth 1, CN=Small Root) has a weak key"),
    ),
    "curve": (
        lambda: [leaf(key=ec.generate_private_key(ec.SECP192R1()))],
        *("TLSv1.3", "weak key (secp192r1)"),
    ),
    "version": (lambda: [leaf()], "TLSv1.1", "speaks is TLSv1.1"),
    "200 days": (lambda: [lasting(200)], "TLSv1.3", ""),
    "201 days": (lambda: [lasting(201)], "TLSv1.3", "for more than 200 days"),
    "issued before": (lambda: [lasting(397, SPRING - pki.DAY)], "TLSv1.3", ""),
}


@pytest.mark.parametrize(("path", "version", "says"), CASES.values(), ids=CASES)
def test_weaknesses(path: Callable[[], list[pki.Issued]], version: str, says: str) -> None:
    certs = [issued.cert for issued in path()]
    found = list(strength.weaknesses(certs, version, StrengthLimits(), public=True))
    assert len(found) == bool(says)
    assert says in " ".join(found)


def test_a_private_authority_chooses_its_lifetimes() -> None:
    path = [lasting(900).cert]
    assert not list(strength.weaknesses(path, "TLSv1.3", StrengthLimits(), public=False))


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs the openssl command")
def test_a_certificate_signed_with_sha1(tmp_path: Path) -> None:
    """Debian 13's `openssl s_client -verify_return_error` refuses it: CA signature digest."""
    old = pki.issue("Old CA", ca=True, key=rsa.generate_private_key(65537, 2048))
    (tmp_path / "ca.pem").write_bytes(old.key_pem + old.cert_pem)
    command = (
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-sha1", "-subj", "/CN=x"),
        *("-CA", "ca.pem", "-CAkey", "ca.pem", "-keyout", "key.pem", "-days", "30"),
    )
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout
    path = [x509.load_pem_x509_certificate(made), old.cert]
    said = list(strength.weaknesses(path, "TLSv1.3", StrengthLimits(), public=False))
    assert said == ["The server's certificate (depth 0, CN=x) is signed with SHA1."]
    tolerated = StrengthLimits(takes_sha1=True)
    assert not list(strength.weaknesses(path, "TLSv1.3", tolerated, public=False))


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, ""),
        ({"rsa_bits": 3072}, "weak key (RSA 2048)"),
        ({"tls_version": "TLSv1.3"}, "speaks is TLSv1.2"),
        ({"lifetime_days": 20}, "more than the 20 days of its policy"),
        ({"lifetime_days": 40}, ""),
    ],
)
def test_a_policy_says_what_is_strong_enough(values: dict[str, Any], says: str) -> None:
    authority = Authority.objects.create(name="test", pem=ROOT.cert_pem.decode())
    policy = Group.objects.create(name="strict", **values)
    endpoint = Endpoint.objects.create(host=HOST, authority=authority, group=policy)
    cert = leaf(key=rsa.generate_private_key(65537, 2048)).cert
    presented = Presented("192.0.2.1", "TLSv1.2", "", (cert,), 1)
    finding = store.Judge(timezone.now()).judge(endpoint, presented)
    assert isinstance(finding, store.Judged)
    assert says in " ".join(finding.weaknesses)
    assert bool(finding.weaknesses) is bool(says)


@pytest.mark.django_db
def test_a_weak_key_is_a_warning_until_it_is_replaced() -> None:
    authority = Authority.objects.create(name="test", pem=ROOT.cert_pem.decode())
    endpoint = Endpoint.objects.create(host=HOST, authority=authority)
    for bits, state in ((1024, "firing"), (2048, "resolved")):
        cert = leaf(key=rsa.generate_private_key(65537, bits)).cert
        presented = Presented("192.0.2.1", "TLSv1.3", "", (cert,), 1)
        store.store([store.Judge(timezone.now()).judge(endpoint, presented)])
        endpoint.refresh_from_db()
        assert endpoint.outcome == chain.Validity.VALID.value
        assert ("weak key (RSA 1024)" in endpoint.remarks) is (bits == 1024)
        alert = Alert.objects.get()
        assert (str(alert.rule), alert.state) == ("ssl_certs/strength", state)
        assert Severity(alert.severity) is Severity.WARNING
