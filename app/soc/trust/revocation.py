"""What stapled OCSP responses and revocation lists (CRLs) say of a path of certificates.

Only evidence that is at hand counts: nothing here asks the network. Evidence that is missing,
expired or not signed as it should be accuses nobody, as in browsers and OpenSSL; it is remarked
on.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import crypto
from OpenSSL.SSL import X509VerificationCodes as Code

from soc.trust.extensions import readable


@dataclass(frozen=True)
class Evidence:
    """What is at hand: the stapled response (DER), and lists by the addresses they came from."""

    staple: bytes = b""
    lists: Mapping[str, x509.CertificateRevocationList] = field(default_factory=dict)


Revoked = tuple[int, str]
"""A depth of the path, and when and why the certificate there was revoked."""


def check(
    path: Sequence[x509.Certificate], evidence: Evidence, at: dt.datetime
) -> tuple[list[Revoked], tuple[str, ...]]:
    """Return the revoked certificates of a path and remarks on evidence that does not count.

    The trust anchor, which nobody above it could revoke, and a leaf without a path are not checked.
    """
    revoked: list[Revoked] = []
    remarks: list[str] = []
    for depth, (cert, issuer) in enumerate(pairwise(path)):
        try:
            if depth == 0 and evidence.staple and (why := _by_staple(cert, issuer, evidence, at)):
                revoked.append((depth, why))
                continue
            if why := _by_list(cert, issuer, evidence, at):
                revoked.append((depth, why))
        except _NoEvidence as reason:
            remarks.append(f"Revocation at depth {depth} was not checked: {reason}.")
    return revoked, tuple(remarks)


class _NoEvidence(Exception):
    """Evidence does not count; the text says why."""


# --- OCSP ----------------------------------------------------------------------------------------


def _by_staple(
    cert: x509.Certificate, issuer: x509.Certificate, evidence: Evidence, at: dt.datetime
) -> str:
    """Return why the stapled response calls a certificate revoked, or nothing (RFC 6960).

    Raises:
        _NoEvidence: the response does not count.
    """
    try:
        response = ocsp.load_der_ocsp_response(evidence.staple)
        if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            status = response.response_status.name.lower()
            raise _NoEvidence(f"the stapled OCSP response says {status}")
        single = _about(cert, response)
        _check_times("stapled OCSP response", single.this_update_utc, single.next_update_utc, at)
        _check_responder(response, issuer, at)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _NoEvidence(f"the stapled OCSP response cannot be decoded ({error})") from error
    if single.certificate_status is not ocsp.OCSPCertStatus.REVOKED:
        return ""
    reason = single.revocation_reason
    return _told(single.revocation_time_utc, reason.value if reason else "", "its OCSP response")


def _about(cert: x509.Certificate, response: ocsp.OCSPResponse) -> ocsp.OCSPSingleResponse:
    for single in response.responses:
        if single.serial_number == cert.serial_number:
            return single
    raise _NoEvidence("the stapled OCSP response is about another certificate")


def _check_responder(
    response: ocsp.OCSPResponse, issuer: x509.Certificate, at: dt.datetime
) -> None:
    """Check that the issuer has signed the response, or a responder that it has appointed.

    RFC 6960 section 4.2.2.2. Raises _NoEvidence otherwise.
    """
    try:
        algorithm = response.signature_hash_algorithm
    except UnsupportedAlgorithm:
        raise _unsupported(response) from None
    responders = [issuer, *(c for c in response.certificates if _is_appointed(c, issuer, at))]
    for responder in responders:
        try:
            _check_signature(
                responder,
                response.signature,
                response.tbs_response_bytes,
                algorithm,
            )
        except InvalidSignature:
            continue
        except UnsupportedAlgorithm:
            raise _unsupported(response) from None
        return
    raise _NoEvidence("the stapled OCSP response is not signed by the issuer")


def _unsupported(response: ocsp.OCSPResponse) -> _NoEvidence:
    oid = response.signature_algorithm_oid
    return _NoEvidence(
        "the signature of the stapled OCSP response uses an algorithm that cannot be checked here"
        f" ({oid.dotted_string})"
    )


def _is_appointed(cert: x509.Certificate, issuer: x509.Certificate, at: dt.datetime) -> bool:
    try:
        cert.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    usages = readable(cert).get(x509.ExtendedKeyUsage) or ()
    in_time = cert.not_valid_before_utc <= at <= cert.not_valid_after_utc
    return in_time and ExtendedKeyUsageOID.OCSP_SIGNING in usages


def _check_signature(
    signer: x509.Certificate,
    signature: bytes,
    data: bytes,
    algorithm: hashes.HashAlgorithm | None,
) -> None:
    """Raise InvalidSignature unless `signer` has signed `data`."""
    key = signer.public_key()
    if isinstance(key, rsa.RSAPublicKey) and algorithm:
        key.verify(signature, data, padding.PKCS1v15(), algorithm)
    elif isinstance(key, ec.EllipticCurvePublicKey) and algorithm:
        key.verify(signature, data, ec.ECDSA(algorithm))
    elif isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        key.verify(signature, data)
    else:
        raise InvalidSignature


# --- CRL -----------------------------------------------------------------------------------------


def addresses(cert: x509.Certificate) -> list[str]:
    """Return where a certificate's revocation list can be fetched by HTTP (RFC 5280, 4.2.1.13).

    Section 8 of the same advises against https: a list is signed, and TLS could need another list.
    """
    points = readable(cert).get(x509.CRLDistributionPoints) or ()
    names = [name for point in points for name in point.full_name or ()]
    uris = [name.value for name in names if isinstance(name, x509.UniformResourceIdentifier)]
    return [uri for uri in uris if uri.startswith("http://")]


def _by_list(
    cert: x509.Certificate, issuer: x509.Certificate, evidence: Evidence, at: dt.datetime
) -> str:
    """Return why a list calls a certificate revoked, or nothing.

    Raises:
        _NoEvidence: the certificate names lists, and none of them counts.
    """
    problem = None
    for address in addresses(cert):
        crl = evidence.lists.get(address)
        if crl is None:
            continue
        try:
            _check_list(crl, cert, issuer, at)
        except _NoEvidence as error:
            problem = error
            continue
        entry = crl.get_revoked_certificate_by_serial_number(cert.serial_number)
        return _told(entry.revocation_date_utc, _reason(entry), "its issuer's CRL") if entry else ""
    if problem:
        raise problem
    return ""


def _check_list(
    crl: x509.CertificateRevocationList,
    cert: x509.Certificate,
    issuer: x509.Certificate,
    at: dt.datetime,
) -> None:
    """Raise _NoEvidence unless the issuer has signed the list, and it is about `cert` and `at`."""
    if crl.issuer != issuer.subject:
        raise _NoEvidence("the CRL is of another issuer than the certificate")
    _check_times("CRL", crl.last_update_utc, crl.next_update_utc, at)
    try:
        # Of a key that signs nothing the library says so by a TypeError.
        key: Any = issuer.public_key()
        signed = crl.is_signature_valid(key)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        signed = False
    # The library refuses what TLS clients take, SHA-1 above all: OpenSSL has the last word.
    if not signed and (problem := _openssl_refuses(crl, cert, issuer, at)):
        raise _NoEvidence(f"the CRL is not signed by the issuer ({problem})")


def _openssl_refuses(
    crl: x509.CertificateRevocationList,
    cert: x509.Certificate,
    issuer: x509.Certificate,
    at: dt.datetime,
) -> str:
    """Return why OpenSSL does not take a list for a certificate, or nothing."""
    store = crypto.X509Store()
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN | crypto.X509StoreFlags.CRL_CHECK)
    store.set_time(at.astimezone(dt.UTC))
    store.add_cert(crypto.X509.from_cryptography(issuer))
    store.add_crl(crl)
    try:
        crypto.X509StoreContext(store, crypto.X509.from_cryptography(cert)).verify_certificate()
    except crypto.X509StoreContextError as error:
        # That it is revoked is what the list is looked into for; the time is judged elsewhere.
        code, _depth, message = error.errors
        fine = (Code.ERR_CERT_REVOKED, Code.ERR_CERT_HAS_EXPIRED, Code.ERR_CERT_NOT_YET_VALID)
        return "" if code in fine else message
    return ""


def _reason(entry: x509.RevokedCertificate) -> str:
    try:
        return entry.extensions.get_extension_for_class(x509.CRLReason).value.reason.value
    except (ValueError, x509.ExtensionNotFound):
        return ""


def _check_times(what: str, since: dt.datetime, until: dt.datetime | None, at: dt.datetime) -> None:
    if at < since:
        raise _NoEvidence(f"the {what} is from the future ({since:%Y-%m-%d %H:%M} UTC)")
    if until is not None and at > until:
        raise _NoEvidence(f"the {what} has expired on {until:%Y-%m-%d %H:%M} UTC")


def _told(when: dt.datetime | None, reason: str, source: str) -> str:
    since = f"since {when:%Y-%m-%d %H:%M} UTC, " if when else ""
    return f"{since}{reason + ', ' if reason else ''}says {source}"
