"""Revocation: stapled responses, lists that are fetched ahead, and evidence that does not count."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import mldsa, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

import pki
from soc.trust import chain, crls, revocation
from soc.trust.chain import Validity
from soc.trust.models import RevocationList
from soc.trust.revocation import Evidence

HOST = "www.example.org"
URL = "http://crl.example.org/ca.crl"
ROOT = pki.issue("Root", ca=True)
STRANGER = pki.issue("Root", ca=True)
DAY = pki.DAY


def naming(*urls: str) -> list[tuple[x509.ExtensionType, bool]]:
    names = [x509.UniformResourceIdentifier(url) for url in urls]
    point = x509.DistributionPoint(names, None, None, None)
    return [(x509.CRLDistributionPoints([point]), False)]


LEAF = pki.issue(HOST, ROOT, san=[HOST], extensions=naming(URL))


def crl(
    signer: pki.Issued = ROOT, *, revoked: bool = True, until: float = 1
) -> x509.CertificateRevocationList:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(signer.cert.subject)
        .last_update(pki.NOW - 3 * DAY)
        .next_update(pki.NOW + until * DAY)
    )
    if revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(LEAF.cert.serial_number)
        builder = builder.add_revoked_certificate(entry.revocation_date(pki.NOW - DAY).build())
    return builder.sign(signer.key, hashes.SHA256())


def staple(
    signer: pki.Issued = ROOT,
    *,
    status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.REVOKED,
    until: float = 1,
    leaf: pki.Issued = LEAF,
    issuer: pki.Issued = ROOT,
    sent: list[x509.Certificate] | None = None,
) -> bytes:
    revoked = status is ocsp.OCSPCertStatus.REVOKED
    builder = ocsp.OCSPResponseBuilder().add_response(
        cert=leaf.cert,
        issuer=issuer.cert,
        algorithm=hashes.SHA256(),
        cert_status=status,
        this_update=pki.NOW - 3 * DAY,
        next_update=pki.NOW + until * DAY,
        revocation_time=pki.NOW - DAY if revoked else None,
        revocation_reason=x509.ReasonFlags.superseded if revoked else None,
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, signer.cert)
    if sent:
        builder = builder.certificates(sent)
    digest = None if isinstance(signer.key, mldsa.MLDSA65PrivateKey) else hashes.SHA256()
    return builder.sign(signer.key, digest).public_bytes(Encoding.DER)


def judged(evidence: Evidence) -> chain.Verdict:
    return chain.verify(
        [LEAF.cert],
        name=HOST,
        trust=chain.parse_trust(ROOT.cert_pem),
        at=pki.NOW,
        evidence=evidence,
    )


def appointed(*usages: x509.ObjectIdentifier) -> pki.Issued:
    return pki.issue("Responder", ROOT, extensions=[(x509.ExtendedKeyUsage(usages), False)])


RESPONDER = appointed(ExtendedKeyUsageOID.OCSP_SIGNING)
ECDSA_WITH_SHA256, ECDSA_WITH_SOMETHING = (
    bytes.fromhex(f"2a8648ce3d0403{last}") for last in ("02", "09")
)
OTHER_ALGORITHM = staple().replace(ECDSA_WITH_SHA256, ECDSA_WITH_SOMETHING)
USURPER = appointed(ExtendedKeyUsageOID.SERVER_AUTH)


@pytest.mark.parametrize(
    "evidence",
    [
        Evidence(lists={URL: crl()}),
        Evidence(staple()),
        Evidence(staple(RESPONDER, sent=[RESPONDER.cert])),
        Evidence(staple(status=ocsp.OCSPCertStatus.GOOD), {URL: crl()}),
    ],
    ids=["list", "staple", "appointed responder", "list beside a good staple"],
)
def test_a_revoked_certificate(evidence: Evidence) -> None:
    verdict = judged(evidence)
    assert (verdict.result, verdict.depth) == (Validity.REVOKED, 0)
    assert "(depth 0, CN=www.example.org) is revoked (since" in verdict.reason


@pytest.mark.parametrize(
    ("evidence", "remark"),
    [
        (Evidence(), ""),
        (Evidence(staple(status=ocsp.OCSPCertStatus.GOOD)), ""),
        (Evidence(lists={URL: crl(revoked=False)}), ""),
        (Evidence(lists={"http://elsewhere/": crl()}), ""),
        (Evidence(lists={URL: crl(STRANGER)}), "the CRL is not signed by the issuer"),
        (Evidence(lists={URL: crl(until=-1)}), "the CRL has expired"),
        (Evidence(staple(STRANGER)), "not signed by the issuer"),
        (Evidence(staple(USURPER, sent=[USURPER.cert])), "not signed by the issuer"),
        (Evidence(staple(until=-1)), "the stapled OCSP response has expired"),
        (Evidence(staple(leaf=STRANGER)), "about another certificate"),
        (Evidence(b"\x30\x03nonsense"), "cannot be decoded"),
        (Evidence(OTHER_ALGORITHM), "cannot be checked here (1.2.840.10045.4.3.9)"),
        (
            Evidence(
                ocsp.OCSPResponseBuilder.build_unsuccessful(
                    ocsp.OCSPResponseStatus.TRY_LATER
                ).public_bytes(Encoding.DER)
            ),
            "says try_later",
        ),
    ],
)
def test_evidence_that_does_not_count_accuses_nobody(evidence: Evidence, remark: str) -> None:
    verdict = judged(evidence)
    assert verdict.result is Validity.VALID
    assert remark in " ".join(verdict.remarks)
    assert bool(verdict.remarks) is bool(remark)


def test_only_plain_http_is_fetched() -> None:
    others = naming("ldap://ca/crl", "https://ca/crl", "file:///etc/passwd", URL)
    assert revocation.addresses(pki.issue("x", extensions=others).cert) == [URL]


OLD_CA = pki.issue("Old CA", ca=True, key=rsa.generate_private_key(65537, 2048))
OF_OLD_CA = pki.issue(HOST, OLD_CA, san=[HOST], extensions=naming(URL))
STRANGE_CA = pki.issue("Old CA", ca=True, key=rsa.generate_private_key(65537, 2048))


def sha1_crl(signer: pki.Issued, folder: Path) -> x509.CertificateRevocationList:
    """Return a list signed with SHA-1, which only the openssl command still makes."""
    cert = OF_OLD_CA.cert
    (folder / "ca.pem").write_bytes(signer.key_pem + signer.cert_pem)
    since, until = (f"{moment:%y%m%d%H%M%SZ}" for moment in (pki.NOW - DAY, pki.NOW + DAY))
    serial = f"{cert.serial_number:X}".rjust(2, "0")
    serial = serial.rjust(len(serial) + len(serial) % 2, "0")
    (folder / "index").write_text(f"R\t{until}\t{since}\t{serial}\tunknown\t/CN=x\n")
    (folder / "conf").write_text(f"[ca]\ndefault_ca=a\n[a]\ndatabase={folder}/index\n")
    command = (
        *("openssl", "ca", "-gencrl", "-md", "sha1", "-crldays", "1", "-config", "conf"),
        *("-cert", "ca.pem", "-keyfile", "ca.pem"),
    )
    finished = subprocess.run(command, cwd=folder, capture_output=True, check=True)
    return x509.load_pem_x509_crl(finished.stdout)


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs the openssl command")
@pytest.mark.parametrize("signer", [OLD_CA, STRANGE_CA], ids=["issuer", "stranger"])
def test_a_list_that_openssl_takes_counts(signer: pki.Issued, tmp_path: Path) -> None:
    verdict = chain.verify(
        [OF_OLD_CA.cert],
        name=HOST,
        trust=chain.parse_trust(OLD_CA.cert_pem),
        at=pki.NOW + timedelta(hours=1),
        evidence=Evidence(lists={URL: sha1_crl(signer, tmp_path)}),
    )
    expected = Validity.REVOKED if signer is OLD_CA else Validity.VALID
    assert verdict.result is expected
    assert ("CRL signature failure" in " ".join(verdict.remarks)) is (signer is STRANGE_CA)


# --- Who may sign, and what for -----------------------------------------------------------------


def distribution(**options: Any) -> list[tuple[x509.ExtensionType, bool]]:
    scope = dict.fromkeys(("full_name", "relative_name", "only_some_reasons"))
    scope |= dict.fromkeys(
        ("only_contains_user_certs", "only_contains_ca_certs", "indirect_crl"), False
    )
    scope["only_contains_attribute_certs"] = False
    return [(x509.IssuingDistributionPoint(**scope | options), True)]


def scoped(
    signer: pki.Issued, leaf: pki.Issued, extensions: list[tuple[x509.ExtensionType, bool]]
) -> x509.CertificateRevocationList:
    """Return a list of one revoked certificate, with its issuer where the signer is another."""
    issuer = x509.CertificateIssuer([x509.DirectoryName(leaf.cert.issuer)])
    entry = x509.RevokedCertificateBuilder().serial_number(leaf.cert.serial_number)
    entry = entry.revocation_date(pki.NOW - DAY)
    if signer.cert.subject != leaf.cert.issuer:
        entry = entry.add_extension(issuer, critical=True)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(signer.cert.subject)
        .last_update(pki.NOW - DAY)
        .next_update(pki.NOW + DAY)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key()), False
        )
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.add_revoked_certificate(entry.build()).sign(signer.key, hashes.SHA256())


SIGNS_LISTS = [
    (
        x509.KeyUsage(
            **dict.fromkeys(("digital_signature", "content_commitment"), False),
            **dict.fromkeys(("key_encipherment", "data_encipherment", "key_agreement"), False),
            **dict.fromkeys(("encipher_only", "decipher_only"), False),
            key_cert_sign=True,
            crl_sign=True,
        ),
        True,
    )
]
NEW_KEY = pki.issue("Root", ROOT, ca=True, extensions=SIGNS_LISTS)
LISTER = pki.issue("Lister", ROOT, ca=True, extensions=SIGNS_LISTS)
_POINT = x509.DistributionPoint(
    [x509.UniformResourceIdentifier(URL)], None, None, [x509.DirectoryName(LISTER.cert.subject)]
)
LISTED_ELSEWHERE = pki.issue(
    HOST, ROOT, san=[HOST], extensions=[(x509.CRLDistributionPoints([_POINT]), False)]
)


@pytest.mark.parametrize(
    ("signer", "leaf", "extensions", "result", "remark"),
    [
        (NEW_KEY, LEAF, [], Validity.REVOKED, ""),
        (
            *(LISTER, LISTED_ELSEWHERE, distribution(indirect_crl=True), Validity.VALID),
            "indirect lists cannot be checked here",
        ),
        (LISTER, LEAF, distribution(indirect_crl=True), Validity.VALID, "of another issuer"),
        (ROOT, LEAF, distribution(only_contains_user_certs=True), Validity.REVOKED, ""),
        (
            *(ROOT, LEAF, distribution(only_contains_ca_certs=True)),
            *(Validity.VALID, "is not about this certificate (different CRL scope)"),
        ),
        (
            *(ROOT, LEAF, distribution(full_name=[x509.UniformResourceIdentifier("http://x/")])),
            *(Validity.VALID, "is not about this certificate (different CRL scope)"),
        ),
    ],
    ids=["new key", "indirect", "not appointed", "of servers", "of authorities", "elsewhere"],
)
def test_openssl_says_whose_list_counts_for_what(
    signer: pki.Issued,
    leaf: pki.Issued,
    extensions: list[tuple[x509.ExtensionType, bool]],
    result: Validity,
    remark: str,
) -> None:
    others = [] if signer is ROOT else [signer.cert]
    verdict = chain.verify(
        [leaf.cert, *others],
        name=HOST,
        trust=chain.parse_trust(ROOT.cert_pem),
        at=pki.NOW,
        evidence=Evidence(lists={URL: scoped(signer, leaf, extensions)}),
    )
    assert verdict.result is result, verdict
    assert remark in " ".join(verdict.remarks)
    assert bool(verdict.remarks) is bool(remark)


def test_a_response_signed_by_ml_dsa() -> None:
    post_quantum = pki.issue("PQ", ca=True, key=mldsa.MLDSA65PrivateKey.generate())
    leaf = pki.issue(HOST, post_quantum, san=[HOST])
    verdict = chain.verify(
        [leaf.cert],
        name=HOST,
        trust=chain.parse_trust(post_quantum.cert_pem),
        at=pki.NOW,
        evidence=Evidence(staple(post_quantum, leaf=leaf, issuer=post_quantum)),
    )
    assert (verdict.result, verdict.remarks) == (Validity.REVOKED, ())


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs the openssl command")
@pytest.mark.parametrize("digest", ["sha256", "sha384"])
@pytest.mark.parametrize("signer", [OLD_CA, STRANGE_CA], ids=["issuer", "stranger"])
def test_a_response_signed_by_rsa_pss(signer: pki.Issued, digest: str, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(OLD_CA.cert_pem)
    (tmp_path / "signer.pem").write_bytes(signer.key_pem + signer.cert_pem)
    since, until = (f"{moment:%y%m%d%H%M%SZ}" for moment in (pki.NOW - DAY, pki.NOW + DAY))
    serial = OF_OLD_CA.cert.serial_number
    (tmp_path / "index").write_text(f"R\t{until}\t{since}\t{serial:040X}\tunknown\t/CN=x\n")
    command = (
        *("openssl", "ocsp", "-index", "index", "-CA", "ca.pem", "-issuer", "ca.pem"),
        *("-rsigner", "signer.pem", "-serial", f"0x{serial:040X}", "-ndays", "1"),
        *("-rmd", digest, "-rsigopt", "rsa_padding_mode:pss", "-respout", "answer", "-noverify"),
    )
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    verdict = chain.verify(
        [OF_OLD_CA.cert],
        name=HOST,
        trust=chain.parse_trust(OLD_CA.cert_pem),
        at=pki.NOW + timedelta(hours=1),
        evidence=Evidence((tmp_path / "answer").read_bytes()),
    )
    expected = Validity.REVOKED if signer is OLD_CA else Validity.VALID
    assert verdict.result is expected
    assert ("is not signed by the issuer" in " ".join(verdict.remarks)) is (signer is STRANGE_CA)


# --- Fetching -----------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[tuple[str, dict[str, bytes]]]:
    """A server of lists: its address, and what it answers by path."""
    answers: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path in answers else 404)
            self.end_headers()
            self.wfile.write(answers.get(self.path, b""))

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}", answers
        httpd.shutdown()


@pytest.mark.django_db
def test_a_list_is_wanted_fetched_and_found(server: tuple[str, dict[str, bytes]]) -> None:
    address, answers = server
    url = f"{address}/ca.crl"
    leaf = pki.issue(HOST, ROOT, extensions=naming(url))
    for _ in range(2):
        crls.want([(leaf.cert, ROOT.cert)])
    assert RevocationList.objects.get().url == url
    assert url not in crls.Lists(pki.NOW)
    answers["/ca.crl"] = crl().public_bytes(Encoding.PEM)
    assert (crls.fetch_due(), crls.fetch_due()) == (1, 0)
    assert crls.Lists(pki.NOW)[url] == crl_of(url)


def crl_of(url: str) -> x509.CertificateRevocationList:
    return x509.load_der_x509_crl(bytes(RevocationList.objects.get(url=url).body))


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("body", "error"),
    [(None, "404"), (b"<html>", "parsing"), (bytes(crls.MOST_BYTES + 1), "more than")],
)
def test_what_is_no_list_is_told_and_tried_again_later(
    server: tuple[str, dict[str, bytes]], body: bytes | None, error: str
) -> None:
    address, answers = server
    if body is not None:
        answers["/ca.crl"] = body
    row = RevocationList.objects.create(url=f"{address}/ca.crl")
    crls.fetch_due()
    row.refresh_from_db()
    assert error in row.error
    assert row.body is None
    assert row.next_fetch_at > row.wanted_at


UNKNOWN_VERSION = crl().public_bytes(Encoding.DER).replace(b"\x02\x01\x01", b"\x02\x01\x02", 1)


def undecodable(body: bytes) -> x509.CertificateRevocationList:
    raise x509.UnsupportedGeneralNameType(f"{len(body)} bytes that no test has thought of")


@pytest.mark.django_db
@pytest.mark.parametrize("decode", [crls._decoded, undecodable], ids=["version", "anything"])
def test_a_list_that_cannot_be_read_stops_no_other(
    server: tuple[str, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch, decode: object
) -> None:
    address, answers = server
    answers |= {"/odd.crl": UNKNOWN_VERSION, "/good.crl": crl().public_bytes(Encoding.DER)}
    real = crls._decoded
    monkeypatch.setattr(
        crls, "_decoded", lambda body: (decode if body == UNKNOWN_VERSION else real)(body)
    )
    odd, good = (
        RevocationList.objects.create(
            url=f"{address}/{name}.crl", next_fetch_at=pki.NOW - hours * DAY / 24
        )
        for name, hours in (("odd", 5), ("good", 4))
    )
    assert crls.fetch_due() == 2
    odd.refresh_from_db()
    good.refresh_from_db()
    assert good.fetched_at
    assert odd.error
    assert odd.next_fetch_at > pki.NOW
