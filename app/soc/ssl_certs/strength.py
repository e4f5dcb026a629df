"""Weak keys, hashes and TLS versions: valid for lenient clients, refused by others.

OpenSSL of Debian 13 refuses keys and hashes of less than 112 bits of security (level 2 of
SSL_CTX_set_security_level(3)): RSA and DSA below 2048 bits, curves below 224 bits, MD5 and SHA-1.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa

from soc.trust.description import named

LEAST_RSA_BITS = 2048
LEAST_CURVE_BITS = 224
WEAK_HASHES = (hashes.MD5, hashes.SHA1)
OLD_VERSIONS = ("SSLv3", "TLSv1", "TLSv1.1")
"""RFC 7568 and RFC 8996 forbid these."""

LONGEST_LIFETIMES = (
    (dt.datetime(2029, 3, 15, tzinfo=dt.UTC), 47),
    (dt.datetime(2027, 3, 15, tzinfo=dt.UTC), 100),
    (dt.datetime(2026, 3, 15, tzinfo=dt.UTC), 200),
    (dt.datetime(2020, 9, 1, tzinfo=dt.UTC), 398),
)
"""Days of validity that public authorities may give, by the day of issue (CA/Browser Forum,
Baseline Requirements 6.3.2)."""


def weaknesses(
    path: Sequence[x509.Certificate], tls_version: str, *, public: bool
) -> Iterator[str]:
    """Yield a sentence for each weakness of a path (leaf first, anchor last) and its handshake.

    `public` holds for paths to the system's store. The anchor's own signature counts nowhere.
    """
    for depth, cert in enumerate(path):
        who = named(cert, depth)
        if key := _weak_key(cert):
            yield f"{who} has a weak key ({key})."
        if (depth == 0 or depth < len(path) - 1) and (name := _weak_hash(cert)):
            yield f"{who} is signed with {name}."
    if tls_version in OLD_VERSIONS:
        yield f"The newest version of TLS that the server speaks is {tls_version}."
    if public and path and (days := _too_long(path[0])):
        who = named(path[0], 0)
        yield f"{who} is valid for more than {days} days, which browsers refuse."


def _weak_key(cert: x509.Certificate) -> str:
    try:
        key = cert.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return ""
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < LEAST_RSA_BITS:
        return f"RSA {key.key_size}"
    if isinstance(key, dsa.DSAPublicKey) and key.key_size < LEAST_RSA_BITS:
        return f"DSA {key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.key_size < LEAST_CURVE_BITS:
        return key.curve.name
    return ""


def _weak_hash(cert: x509.Certificate) -> str:
    try:
        algorithm = cert.signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        return ""
    return algorithm.name.upper() if isinstance(algorithm, WEAK_HASHES) else ""


def _too_long(leaf: x509.Certificate) -> int | None:
    issued = leaf.not_valid_before_utc
    for since, days in LONGEST_LIFETIMES:
        if issued >= since:
            return days if leaf.not_valid_after_utc - issued > dt.timedelta(days=days) else None
    return None
