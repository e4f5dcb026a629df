"""Judge a presented chain.

Paths are built and checked by OpenSSL, through pyOpenSSL, since its verdict is what the clients of
an endpoint will meet. The other maintained choice, `cryptography.x509.verification`, follows the
CA/Browser Forum's profile and cannot be talked out of it: it refuses what private authorities issue
every day (a root of version 1, a certificate without a subject alternative name) and gives its
reasons as text only.
"""

from __future__ import annotations

import datetime as dt
import functools
import ipaddress
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import (
    AuthorityInformationAccessOID,
    ExtendedKeyUsageOID,
    NameOID,
)
from OpenSSL import crypto
from OpenSSL.SSL import X509VerificationCodes as Code

from soc.common.net import a_label
from soc.trust import revocation
from soc.trust.description import called, capital, escape, name_text, names_of
from soc.trust.extensions import readable
from soc.trust.revocation import Evidence

# --- trust ---------------------------------------------------------------------------------------


class TrustError(Exception):
    """A trust store cannot be used; the text says which and why."""


@dataclass(frozen=True)
class TrustStore:
    """Trust anchors: a path that reaches any one of them is trusted (RFC 5280 section 6.1.1).

    An anchor need not be self-signed: an intermediate or a server's own certificate may be named.
    """

    anchors: tuple[x509.Certificate, ...]
    openssl_anchors: tuple[crypto.X509, ...]

    def store(self, at: dt.datetime) -> crypto.X509Store:
        """Return the anchors as OpenSSL takes them, judging at the aware time `at`.

        Each judgement needs a store of its own: a store takes one time only, OpenSSL ignores a
        later one without an error (X509_VERIFY_PARAM_inherit(3): what is set is not replaced).
        Filling it with the 144 anchors of a system's bundle takes 0.1 ms.
        """
        store = crypto.X509Store()
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
        store.set_time(at.astimezone(dt.UTC))
        for anchor in self.openssl_anchors:
            store.add_cert(anchor)
        return store

    @functools.cached_property
    def organisations(self) -> frozenset[str | bytes]:
        """The organisations that the anchors belong to."""
        return frozenset(name for anchor in self.anchors for name in _organisations(anchor.subject))


def system_bundle() -> Path:
    """Return the file that holds this system's trust anchors, for `load_trust`.

    OpenSSL's own default and the variable SSL_CERT_FILE decide. Raises TrustError if it is missing.
    """
    found = ssl.get_default_verify_paths()
    if not found.cafile:
        raise TrustError(
            f"{found.openssl_cafile}: this system has no CA bundle there,"
            f" install one or name it in {found.openssl_cafile_env}"
        )
    return Path(found.cafile)


def load_trust(paths: Iterable[Path]) -> TrustStore:
    """Return the trust anchors of all the PEM files in `paths`.

    Raises TrustError when a file is missing or unreadable, or holds no certificate or a damaged
    one.
    """
    stores = [_load_file(path) for path in paths]
    if len(stores) == 1:
        return stores[0]
    return TrustStore(
        anchors=tuple(anchor for store in stores for anchor in store.anchors),
        openssl_anchors=tuple(anchor for store in stores for anchor in store.openssl_anchors),
    )


def _load_file(path: Path) -> TrustStore:
    try:
        return parse_trust(path.read_bytes())
    except OSError as error:
        raise TrustError(f"{path}: {error.strerror}") from error
    except TrustError as error:
        raise TrustError(f"{path}: {error}") from error


# A system's bundle takes some 15 ms to parse, and serves thousands of endpoints unchanged.
@functools.lru_cache(maxsize=16)
def parse_trust(pem: bytes) -> TrustStore:
    """Return the trust anchors in a PEM bundle.

    Raises TrustError when it holds no certificate or a damaged one.
    """
    try:
        anchors = tuple(x509.load_pem_x509_certificates(pem))
        openssl_anchors = tuple(crypto.X509.from_cryptography(anchor) for anchor in anchors)
    except (ValueError, x509.InvalidVersion, crypto.Error) as error:
        raise TrustError(f"no usable CA certificates ({error})") from error
    return TrustStore(anchors, openssl_anchors)


# --- verify --------------------------------------------------------------------------------------


class Validity(StrEnum):
    """What a client would say of a chain."""

    VALID = "valid"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    SELF_SIGNED = "self_signed"
    UNKNOWN_ISSUER = "unknown_issuer"
    MISSING_INTERMEDIATE = "missing_intermediate"
    NAME_MISMATCH = "name_mismatch"
    REVOKED = "revoked"
    UNEXPECTED = "unexpected"
    INVALID = "invalid"


@dataclass(frozen=True)
class Verdict:
    """The result, and for the operator a reason that names the certificate and its depth.

    `depth` is that of the certificate at fault: 0 is the server's, 1 its issuer's. `path` leads
    from the leaf to the anchor, if there is such a path; `remarks` are sentences about what could
    not be checked; `fault` is the certificate at `depth`, where it could be decoded.
    """

    result: Validity
    reason: str
    depth: int | None = None
    path: tuple[x509.Certificate, ...] = ()
    remarks: tuple[str, ...] = ()
    fault: x509.Certificate | None = None


# What cryptography and OpenSSL raise when they look at a damaged part of a certificate.
_UNDECODABLE = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    crypto.Error,
)


_NO_EVIDENCE = Evidence()


def verify(
    chain: Sequence[x509.Certificate],
    *,
    name: str,
    trust: TrustStore,
    at: dt.datetime,
    evidence: Evidence = _NO_EVIDENCE,
) -> Verdict:
    """Judge a presented chain (leaf first, the others in any order) as a TLS client would.

    `name` is the host name or IP address that the leaf has to be for, `at` an aware time,
    `evidence` what is available about revocation.

    When several things are wrong the result is the first of them in the order in which OpenSSL
    reports them, and the reason names them all:

    1. the path: SELF_SIGNED, UNKNOWN_ISSUER, MISSING_INTERMEDIATE, INVALID;
    2. the name: NAME_MISMATCH;
    3. the revocation: REVOKED;
    4. the time: NOT_YET_VALID, EXPIRED.

    So an expired certificate for another name is a NAME_MISMATCH: renewing it would not help.
    Weak keys and hashes are left to the reader of `describe`.
    """
    if not chain:
        return Verdict(Validity.INVALID, "No certificate was presented.")
    try:
        path, findings = _build_path(chain, trust, at)
        findings += _purpose_findings(path)
        findings += _name_findings(chain[0], name)
        findings += _time_findings(chain[0], at)
        revoked, remarks = revocation.check(path, evidence, at, (*chain, *trust.anchors))
        findings += [_revoked(path[depth], depth, why) for depth, why in revoked]
        remarks += _unread(path)
    except _UNDECODABLE as error:
        return Verdict(
            Validity.INVALID,
            "A part of the server's certificate (depth 0) or of its chain cannot be decoded"
            f" ({escape(str(error))}).",
        )
    # Without a path there is the leaf alone.
    whole = tuple(path) if not any(finding.path_failed for finding in findings) else ()
    if not findings:
        anchor = name_text(path[-1].subject)
        reason = (
            f"A path of {len(path)} certificates leads from {called(path[0], 0)} to the trust"
            f" anchor {anchor}."
        )
        return Verdict(Validity.VALID, reason, None, whole, remarks)
    findings.sort(key=lambda finding: _ORDER.get(finding.result, 0))
    # OpenSSL may have found what our own look at the leaf finds again.
    reasons = dict.fromkeys(finding.reason for finding in findings)
    first = findings[0]
    fault = first.fault or (path[first.depth] if first.depth is not None else None)
    return Verdict(first.result, " ".join(reasons), first.depth, whole, remarks, fault)


def unexpected(
    leaf: x509.Certificate, *, fingerprints: Sequence[str], issuer: str
) -> Verdict | None:
    """Return what is not as the operator has pinned it, or None.

    `fingerprints` are SHA-256 in upper-case hexadecimal, one of which the leaf must have; `issuer`
    is a part of the issuer's name. Empty ones expect nothing.
    """
    reasons = []
    own = leaf.fingerprint(hashes.SHA256()).hex().upper()
    if fingerprints and own not in fingerprints:
        reasons.append(f"{capital(called(leaf, 0))} is not a pinned one: its fingerprint is {own}.")
    if issuer and issuer.casefold() not in name_text(leaf.issuer).casefold():
        reasons.append(
            f"{capital(called(leaf, 0))} was issued by {name_text(leaf.issuer)}, where"
            f" {escape(issuer)} is expected."
        )
    return Verdict(Validity.UNEXPECTED, " ".join(reasons), 0, fault=leaf) if reasons else None


def with_unexpected(verdict: Verdict, other: Verdict) -> Verdict:
    """Return a verdict that also says what is not as it was pinned; other faults come first."""
    if verdict.result is Validity.VALID:
        return replace(
            verdict, result=other.result, reason=other.reason, depth=other.depth, fault=other.fault
        )
    return replace(verdict, reason=f"{verdict.reason} {other.reason}")


@dataclass(frozen=True)
class _Finding:
    """One thing that is wrong, with the depth of the certificate at fault."""

    result: Validity
    reason: str
    depth: int | None
    path_failed: bool = False
    fault: x509.Certificate | None = None


_ORDER = {
    Validity.NAME_MISMATCH: 1,
    Validity.REVOKED: 2,
    Validity.NOT_YET_VALID: 3,
    Validity.EXPIRED: 3,
}
"""Where OpenSSL reports these; everything about the path comes first."""


def _build_path(
    chain: Sequence[x509.Certificate], trust: TrustStore, at: dt.datetime
) -> tuple[list[x509.Certificate], list[_Finding]]:
    """Return the path from leaf to anchor, or the leaf alone and what is wrong with its path."""
    leaf, *others = (_for_openssl(cert) for cert in chain)
    try:
        path = crypto.X509StoreContext(trust.store(at), leaf, others).get_verified_chain()
    except crypto.X509StoreContextError as error:
        finding = _path_finding(error, chain, trust)
        fault = error.certificate.to_cryptography()
        return [chain[0]], [replace(finding, path_failed=True, fault=fault)]
    return [cert.to_cryptography() for cert in path], []


# The intermediates of a site are few, and every endpoint presents them.
@functools.lru_cache(maxsize=256)
def _for_openssl(cert: x509.Certificate) -> crypto.X509:
    return crypto.X509.from_cryptography(cert)


def _path_finding(
    error: crypto.X509StoreContextError, chain: Sequence[x509.Certificate], trust: TrustStore
) -> _Finding:
    code, depth, message = error.errors
    cert = error.certificate.to_cryptography()
    who = called(cert, depth)
    match code:
        case Code.ERR_CERT_HAS_EXPIRED:
            return _expired(cert, depth)
        case Code.ERR_CERT_NOT_YET_VALID:
            return _not_yet_valid(cert, depth)
        case Code.ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
            reason = f"{capital(who)} is self-signed and no trust anchor."
            return _Finding(Validity.SELF_SIGNED, reason, depth)
        case Code.ERR_SELF_SIGNED_CERT_IN_CHAIN:
            reason = f"The chain ends at {who}, which is no trust anchor."
            return _Finding(Validity.UNKNOWN_ISSUER, reason, depth)
        case (
            Code.ERR_UNABLE_TO_GET_ISSUER_CERT
            | Code.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY
            | Code.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE
        ):
            if not (problems := readable(cert).problems):
                return _issuer_finding(cert, depth, chain, trust)
            # OpenSSL looks in vain for the issuer of a certificate that it cannot decode.
            reason = f"A part of {who} cannot be decoded ({escape(problems[0])})."
            return _Finding(Validity.INVALID, reason, depth)
        case _:
            reason = f"{capital(who)} is not acceptable: {message}."
            return _Finding(Validity.INVALID, reason, depth)


def _issuer_finding(
    cert: x509.Certificate, depth: int, chain: Sequence[x509.Certificate], trust: TrustStore
) -> _Finding:
    """Distinguish a missing intermediate from an authority that nobody here knows.

    Neither is provable without the missing certificate. An intermediate is missing when nothing
    was presented above the leaf and one of these hints at a hierarchy: the leaf says where its
    issuer can be downloaded (RFC 5280 section 4.2.2.1), other certificates were presented, or a
    trust anchor belongs to the organisation of the issuer.
    """
    who, issuer = capital(called(cert, depth)), name_text(cert.issuer)
    if any(other.subject == cert.issuer for other in chain):
        issuer += " (what was presented under that name has another key or is damaged)"
    if depth == 0 and (
        len(chain) > 1 or _has_ca_issuers(cert) or trust.organisations & _organisations(cert.issuer)
    ):
        return _Finding(
            Validity.MISSING_INTERMEDIATE,
            f"{who} was issued by {issuer}, which is neither presented nor a trust anchor:"
            " the server should send its intermediate certificates.",
            depth,
        )
    return _Finding(
        Validity.UNKNOWN_ISSUER,
        f"{who} was issued by {issuer}, which is no trust anchor: if that authority is to be"
        " trusted, add it to the CA bundle.",
        depth,
    )


def _has_ca_issuers(cert: x509.Certificate) -> bool:
    accesses = readable(cert).get(x509.AuthorityInformationAccess) or ()
    return any(
        access.access_method == AuthorityInformationAccessOID.CA_ISSUERS for access in accesses
    )


def _organisations(name: x509.Name) -> set[str | bytes]:
    return {a.value for a in name.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)}


def _purpose_findings(path: Sequence[x509.Certificate]) -> list[_Finding]:
    """Check that the path may be used for a TLS server, as `openssl verify -purpose sslserver`.

    pyOpenSSL has no public call that makes OpenSSL check it.
    """
    findings = []
    for depth, cert in enumerate(path):
        usages = readable(cert).get(x509.ExtendedKeyUsage)
        if usages is not None and ExtendedKeyUsageOID.SERVER_AUTH not in usages:
            findings.append(
                _Finding(
                    Validity.INVALID,
                    f"{capital(called(cert, depth))} is not meant for TLS servers"
                    " (its extended key usage lacks serverAuth).",
                    depth,
                )
            )
    usage = readable(path[0]).get(x509.KeyUsage)
    if usage and not (usage.digital_signature or usage.key_encipherment or usage.key_agreement):
        findings.append(
            _Finding(
                Validity.INVALID,
                f"{capital(called(path[0], 0))} is not meant for TLS (its key usage allows neither"
                " signatures nor key exchange).",
                0,
            )
        )
    return findings


def _time_findings(leaf: x509.Certificate, at: dt.datetime) -> list[_Finding]:
    if at > leaf.not_valid_after_utc:
        return [_expired(leaf, 0)]
    return [_not_yet_valid(leaf, 0)] if at < leaf.not_valid_before_utc else []


def _revoked(cert: x509.Certificate, depth: int, why: str) -> _Finding:
    return _Finding(Validity.REVOKED, f"{capital(called(cert, depth))} is revoked ({why}).", depth)


def _expired(cert: x509.Certificate, depth: int) -> _Finding:
    when = f"{cert.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    return _Finding(Validity.EXPIRED, f"{capital(called(cert, depth))} expired on {when}.", depth)


def _not_yet_valid(cert: x509.Certificate, depth: int) -> _Finding:
    when = f"{cert.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
    reason = f"{capital(called(cert, depth))} is valid from {when} on."
    return _Finding(Validity.NOT_YET_VALID, reason, depth)


# --- names ---------------------------------------------------------------------------------------

MOST_NAMES_TOLD = 20


def _unread(path: Sequence[x509.Certificate]) -> tuple[str, ...]:
    """Return what our own look at certificates could not read, and OpenSSL let pass."""
    return tuple(
        f"A part of {called(cert, depth)} could not be read: {escape(problem)}."
        for depth, cert in enumerate(path)
        for problem in readable(cert).problems
    )


def _name_findings(leaf: x509.Certificate, name: str) -> list[_Finding]:
    if _matches(leaf, name):
        return []
    names = names_of(readable(leaf))
    listed = ", ".join(escape(text) for text in names[:MOST_NAMES_TOLD]) or "none"
    if len(names) > MOST_NAMES_TOLD:
        listed += f" and {len(names) - MOST_NAMES_TOLD} more"
    reason = f"{capital(called(leaf, 0))} is not for {escape(name)}, its names are: {listed}."
    return [_Finding(Validity.NAME_MISMATCH, reason, 0)]


def _matches(leaf: x509.Certificate, name: str) -> bool:
    """RFC 9525 section 6: subject alternative names only, the common name does not count."""
    san = readable(leaf).get(x509.SubjectAlternativeName) or ()
    try:
        wanted = ipaddress.ip_address(name)
    except ValueError:
        pass
    else:
        return any(entry.value == wanted for entry in san if isinstance(entry, x509.IPAddress))
    try:
        host = a_label(name)
    except ValueError:
        return False
    return any(_dns_matches(entry.value, host) for entry in san if isinstance(entry, x509.DNSName))


def _dns_matches(pattern: str, host: str) -> bool:
    """RFC 9525 section 6.3: a wildcard is the whole first label and stands for exactly one.

    As in OpenSSL and browsers, a wildcard right below a top-level domain matches nothing.
    """
    pattern = pattern.lower()
    first, _, parent = pattern.partition(".")
    if first != "*":
        return pattern == host
    return "." in parent and host.partition(".")[2] == parent
