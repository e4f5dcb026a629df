"""Weak keys, hashes and TLS versions: valid for lenient clients, refused by others."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa

from soc.ssl_certs.policies import TLS_VERSIONS, StrengthLimits
from soc.trust.description import named

LONGEST_LIFETIMES = (
    (dt.datetime(2029, 3, 15, tzinfo=dt.UTC), 47),
    (dt.datetime(2027, 3, 15, tzinfo=dt.UTC), 100),
    (dt.datetime(2026, 3, 15, tzinfo=dt.UTC), 200),
    (dt.datetime(2020, 9, 1, tzinfo=dt.UTC), 398),
)
"""Days of validity that public authorities may give, by the day of issue (CA/Browser Forum,
Baseline Requirements 6.3.2)."""


def weaknesses(
    path: Sequence[x509.Certificate],
    tls_version: str,
    limits: StrengthLimits,
    *,
    public: bool,
) -> Iterator[str]:
    """Yield a sentence for each weakness of a path (leaf first, anchor last) and its handshake.

    `public` holds for paths to the system's store. The anchor's own signature counts nowhere.
    """
    for depth, cert in enumerate(path):
        who = named(cert, depth)
        if key := _weak_key(cert, limits):
            yield f"{who} has a weak key ({key})."
        if (depth == 0 or depth < len(path) - 1) and (name := _weak_hash(cert, limits)):
            yield f"{who} is signed with {name}."
    if _is_older(tls_version, limits.tls_version):
        yield f"The newest version of TLS that the server speaks is {tls_version}."
    if path:
        yield from _lifetime(path[0], limits, public=public)


def _is_older(version: str, than: str) -> bool:
    # A version that is not known here is a newer one, or none after a refused handshake.
    return version in TLS_VERSIONS and TLS_VERSIONS.index(version) < TLS_VERSIONS.index(than)


def _lifetime(leaf: x509.Certificate, limits: StrengthLimits, *, public: bool) -> Iterator[str]:
    who = named(leaf, 0)
    if limits.lifetime_days is not None:
        if leaf.not_valid_after_utc - leaf.not_valid_before_utc > dt.timedelta(
            days=limits.lifetime_days
        ):
            yield f"{who} is valid for more than the {limits.lifetime_days} days of its policy."
    elif public and (days := _too_long(leaf)):
        yield f"{who} is valid for more than {days} days, which browsers refuse."


def _weak_key(cert: x509.Certificate, limits: StrengthLimits) -> str:
    try:
        key = cert.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return ""
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < limits.rsa_bits:
        return f"RSA {key.key_size}"
    if isinstance(key, dsa.DSAPublicKey) and key.key_size < limits.rsa_bits:
        return f"DSA {key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.key_size < limits.curve_bits:
        return key.curve.name
    return ""


def _weak_hash(cert: x509.Certificate, limits: StrengthLimits) -> str:
    try:
        algorithm = cert.signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        return ""
    weak = (hashes.MD5,) if limits.takes_sha1 else (hashes.MD5, hashes.SHA1)
    return algorithm.name.upper() if isinstance(algorithm, weak) else ""


def _too_long(leaf: x509.Certificate) -> int | None:
    issued = leaf.not_valid_before_utc
    for since, days in LONGEST_LIFETIMES:
        if issued >= since:
            return days if leaf.not_valid_after_utc - issued > dt.timedelta(days=days) else None
    return None
