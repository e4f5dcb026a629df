"""A publisher's identity and the CAs that it trusts, in one file as Java reads it.

Java takes a certificate of a PKCS #12 file (RFC 7292) as trusted only if its bag has an attribute
of Oracle's (JDK, ``sun.security.pkcs12.PKCS12KeyStore``, ``ORACLE_TrustedKeyUsage``); a CA in the
chain of a key is not. ``cryptography`` writes keys, and it writes trusted certificates, but not
both into one file: here the two files' contents are put into one, under a new checksum.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from typing import Annotated

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from soc.provision.pki import KeyPair

_ROUNDS = 10_000
_SALT_LENGTH = 20
_MAC_KEY = b"\x03"
"""What the derived key is for: a checksum (RFC 7292, B.3)."""


@asn1.sequence
class _ContentInfo:
    kind: x509.ObjectIdentifier
    content: Annotated[bytes, asn1.Explicit(0)]


@asn1.sequence
class _Algorithm:
    name: x509.ObjectIdentifier
    parameters: asn1.Null


@asn1.sequence
class _DigestInfo:
    algorithm: _Algorithm
    digest: bytes


@asn1.sequence
class _MacData:
    mac: _DigestInfo
    salt: bytes
    rounds: int


@asn1.sequence
class _Own:
    certificate: asn1.TLV
    key: asn1.TLV


@asn1.sequence
class _Trusted:
    authorities: asn1.TLV


@asn1.sequence
class _Both:
    certificate: asn1.TLV
    key: asn1.TLV
    authorities: asn1.TLV


@asn1.sequence
class _Pfx:
    version: int
    safe: _ContentInfo
    mac: _MacData


def key_store(
    name: str, password: bytes, identity: KeyPair, authorities: Iterable[x509.Certificate]
) -> bytes:
    """Return a PKCS #12 file with an identity and the CAs that it trusts, under a password."""
    encryption = serialization.BestAvailableEncryption(password)
    own = pkcs12.serialize_key_and_certificates(
        name.encode(), identity.key, identity.certificate, None, encryption
    )
    trusted = pkcs12.serialize_java_truststore(_named(authorities), encryption)
    return _joined(own, trusted, password)


def is_key_store_of(
    content: bytes,
    password: bytes,
    identity: KeyPair,
    authorities: Iterable[x509.Certificate],
) -> bool:
    """Return whether ``key_store`` would make an equal file, salts aside.

    A file whose CAs have no names is of an earlier version, and Java does not trust them.
    """
    try:
        found = pkcs12.load_pkcs12(content, password)
    except ValueError:
        return False
    return (
        found.cert is not None
        and found.cert.certificate == identity.certificate
        and set(found.additional_certs) == set(_named(authorities))
    )


def _named(authorities: Iterable[x509.Certificate]) -> list[pkcs12.PKCS12Certificate]:
    return [
        pkcs12.PKCS12Certificate(authority, f"ca-{authority.serial_number:x}".encode())
        for authority in authorities
    ]


def _joined(own: bytes, trusted: bytes, password: bytes) -> bytes:
    """Return a PKCS #12 file that holds what two files of the same password hold."""
    first, second = asn1.decode_der(_Pfx, own), asn1.decode_der(_Pfx, trusted)
    identity = asn1.decode_der(_Own, first.safe.content)
    authorities = asn1.decode_der(_Trusted, second.safe.content).authorities
    both = _Both(certificate=identity.certificate, key=identity.key, authorities=authorities)
    safe, salt = asn1.encode_der(both), secrets.token_bytes(_SALT_LENGTH)
    digest = _checksum(safe, password, salt, _ROUNDS)
    mac = _DigestInfo(algorithm=first.mac.mac.algorithm, digest=digest)
    return asn1.encode_der(
        _Pfx(
            version=first.version,
            safe=_ContentInfo(kind=first.safe.kind, content=safe),
            mac=_MacData(mac=mac, salt=salt, rounds=_ROUNDS),
        )
    )


def _checksum(safe: bytes, password: bytes, salt: bytes, rounds: int) -> bytes:
    """Return the HMAC-SHA-256 of a file's content (RFC 7292, 4 and B.2).

    The key is as long as the hash, so that one turn of the derivation gives all of it.
    """
    hash_ = hashlib.sha256
    block = hash_().block_size
    letters = (password.decode() + "\0").encode("utf-16-be")
    key = _MAC_KEY * block + _filled(salt, block) + _filled(letters, block)
    for _ in range(rounds):
        key = hash_(key).digest()
    return hmac.digest(key, safe, hash_)


def _filled(text: bytes, block: int) -> bytes:
    """Repeat a text until it fills whole blocks."""
    length = -(-len(text) // block) * block
    return (text * (length // len(text) + 1))[:length]
