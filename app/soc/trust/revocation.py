"""What stapled OCSP responses and revocation lists (CRLs) say of a path of certificates.

Only evidence that is available counts: nothing here asks the network. Evidence that is missing,
expired or not signed as it should be accuses nobody, as in browsers and OpenSSL; it is remarked
on.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, padding, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, SignatureAlgorithmOID
from OpenSSL import crypto
from OpenSSL.SSL import X509VerificationCodes as Code

from soc.trust.extensions import readable


@dataclass(frozen=True)
class Evidence:
    """What is available: the stapled response (DER), and lists by the addresses they came from."""

    staple: bytes = b""
    lists: Mapping[str, x509.CertificateRevocationList] = field(default_factory=dict)


Revoked = tuple[int, str]
"""A depth of the path, and when and why the certificate there was revoked."""


def check(
    path: Sequence[x509.Certificate],
    evidence: Evidence,
    at: dt.datetime,
    others: Sequence[x509.Certificate] = (),
) -> tuple[list[Revoked], tuple[str, ...]]:
    """Return the revoked certificates of a path and remarks on evidence that does not count.

    The trust anchor, which nobody above it could revoke, and a leaf without a path are not checked.
    `others` are the presented certificates and trust anchors, of which one may have signed a list,
    that of an authority with a new key (RFC 5280, 6.3.3).
    """
    revoked: list[Revoked] = []
    remarks: list[str] = []
    for depth, (cert, issuer) in enumerate(pairwise(path)):
        try:
            if depth == 0 and evidence.staple and (why := _by_staple(cert, issuer, evidence, at)):
                revoked.append((depth, why))
                continue
            if why := _by_list(cert, path[depth + 1 :], evidence, at, others):
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
    responders = [issuer, *(c for c in response.certificates if _is_appointed(c, issuer, at))]
    for responder in responders:
        try:
            _check_signature(responder, response)
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


_SIGNS_DATA = (
    *(ed25519.Ed25519PublicKey, ed448.Ed448PublicKey),
    *(mldsa.MLDSA44PublicKey, mldsa.MLDSA65PublicKey, mldsa.MLDSA87PublicKey),
)
"""Keys that sign what they are given and leave no choice of a hash (RFC 8032, FIPS 204)."""

_HASHES_OF_PSS = (hashes.SHA256(), hashes.SHA384(), hashes.SHA512())
"""Those of RSASSA-PSS in TLS (RFC 8446, 4.2.3): the library does not tell a response's own."""


def _check_signature(signer: x509.Certificate, response: ocsp.OCSPResponse) -> None:
    """Check that `signer` has signed a response.

    Raises:
        InvalidSignature: it has not.
        UnsupportedAlgorithm: nobody here can say.
    """
    key = signer.public_key()
    signature, data = response.signature, response.tbs_response_bytes
    if isinstance(key, _SIGNS_DATA):
        key.verify(signature, data)
    elif isinstance(key, rsa.RSAPublicKey) and _is_pss(response):
        _check_pss(key, signature, data)
    elif isinstance(key, rsa.RSAPublicKey) and (algorithm := response.signature_hash_algorithm):
        key.verify(signature, data, padding.PKCS1v15(), algorithm)
    elif isinstance(key, ec.EllipticCurvePublicKey) and (
        algorithm := response.signature_hash_algorithm
    ):
        key.verify(signature, data, ec.ECDSA(algorithm))
    else:
        raise InvalidSignature


def _is_pss(response: ocsp.OCSPResponse) -> bool:
    return response.signature_algorithm_oid == SignatureAlgorithmOID.RSASSA_PSS


def _check_pss(key: rsa.RSAPublicKey, signature: bytes, data: bytes) -> None:
    for algorithm in _HASHES_OF_PSS:
        scheme = padding.PSS(padding.MGF1(algorithm), padding.PSS.AUTO)
        with contextlib.suppress(InvalidSignature):
            return key.verify(signature, data, scheme, algorithm)
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
    cert: x509.Certificate,
    above: Sequence[x509.Certificate],
    evidence: Evidence,
    at: dt.datetime,
    others: Sequence[x509.Certificate],
) -> str:
    """Return why a list calls a certificate revoked, or nothing; `above` is the path from it up.

    Raises:
        _NoEvidence: the certificate names lists, and none of them counts.
    """
    problem = None
    for address in addresses(cert):
        crl = evidence.lists.get(address)
        if crl is None:
            continue
        try:
            _check_times("CRL", crl.last_update_utc, crl.next_update_utc, at)
            # The library refuses what TLS clients take, SHA-1 above all, and knows nothing of a
            # list's scope: OpenSSL has the last word.
            is_revoked = _is_whole_list_of(above[0], crl) or _openssl_calls_revoked(
                cert, crl, above, others, at
            )
        except _NoEvidence as error:
            problem = error
            continue
        entry = crl.get_revoked_certificate_by_serial_number(cert.serial_number)
        if entry and is_revoked:
            return _told(entry.revocation_date_utc, _reason(entry), "its issuer's CRL")
        return ""
    if problem:
        raise problem
    return ""


def _is_whole_list_of(issuer: x509.Certificate, crl: x509.CertificateRevocationList) -> bool:
    """Return whether an issuer's own key has signed a list of all that it has revoked."""
    try:
        # Of a key that signs nothing the library says so by a TypeError.
        key: Any = issuer.public_key()
        scoped = any(isinstance(one.value, _SCOPES) for one in crl.extensions)
        return crl.issuer == issuer.subject and not scoped and crl.is_signature_valid(key)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False


_SCOPES = (x509.IssuingDistributionPoint, x509.DeltaCRLIndicator)
"""Extensions of a list that says less than everything (RFC 5280, 5.2.4 and 5.2.5)."""

_EXTENDED_CRL_SUPPORT = 0x1000
"""OpenSSL's X509_V_FLAG_EXTENDED_CRL_SUPPORT: lists that another key of the issuer has signed."""


def _openssl_calls_revoked(
    cert: x509.Certificate,
    crl: x509.CertificateRevocationList,
    above: Sequence[x509.Certificate],
    others: Sequence[x509.Certificate],
    at: dt.datetime,
) -> bool:
    """Return whether OpenSSL, which checks who may sign a list, calls a certificate revoked by it.

    Raises:
        _NoEvidence: the list does not count for the certificate.
    """
    store = crypto.X509Store()
    flags = crypto.X509StoreFlags.PARTIAL_CHAIN | crypto.X509StoreFlags.CRL_CHECK
    store.set_flags(flags | _EXTENDED_CRL_SUPPORT)
    store.set_time(at.astimezone(dt.UTC))
    for trusted in above:
        store.add_cert(crypto.X509.from_cryptography(trusted))
    store.add_crl(crl)
    # Who signed may be none of the path, but must have been issued by one of it.
    signers = [crypto.X509.from_cryptography(one) for one in others if one.subject == crl.issuer]
    leaf = crypto.X509.from_cryptography(cert)
    try:
        crypto.X509StoreContext(store, leaf, signers).verify_certificate()
    except crypto.X509StoreContextError as error:
        code, _depth, message = error.errors
        # The time is judged elsewhere, and OpenSSL looks at it after the lists.
        if code in (Code.ERR_CERT_HAS_EXPIRED, Code.ERR_CERT_NOT_YET_VALID):
            return False
        if code == Code.ERR_CERT_REVOKED:
            return True
        raise _NoEvidence(f"the CRL {_why_not(crl, above[0], code)} ({message})") from None
    return False


def _why_not(crl: x509.CertificateRevocationList, issuer: x509.Certificate, code: int) -> str:
    if code == Code.ERR_DIFFERENT_CRL_SCOPE:
        return "is not about this certificate"
    if crl.issuer == issuer.subject:
        return "is not signed by the issuer"
    # OpenSSL looks for lists by the name of the certificate's issuer: pyOpenSSL cannot hand it one.
    return "is of another issuer than the certificate: indirect lists cannot be checked here"


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
