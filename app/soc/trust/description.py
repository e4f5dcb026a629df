"""What a certificate says of itself, and how it is named in a sentence."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.x509.oid import NameOID, SignatureAlgorithmOID

from soc.trust.extensions import Readable, readable

T = TypeVar("T")

_SIGNATURE_NAMES = {
    oid: name.lstrip("_")
    for name, oid in vars(SignatureAlgorithmOID).items()
    if isinstance(oid, x509.ObjectIdentifier)
}


@dataclass(frozen=True)
class Description:
    """What a certificate says of itself. Text has its control characters escaped.

    A part that cannot be decoded is empty (None for a time), with the reason in `problems`.
    """

    subject: str
    issuer: str
    serial: str
    not_before: dt.datetime | None
    not_after: dt.datetime | None
    san: tuple[str, ...]
    key: str
    signature: str
    fingerprint_sha256: str
    is_ca: bool
    self_signed: bool
    problems: tuple[str, ...]


_EARLIEST = dt.datetime(1, 1, 2, tzinfo=dt.UTC)
_LATEST = dt.datetime(9999, 12, 30, tzinfo=dt.UTC)


def describe(cert: x509.Certificate) -> Description:
    """Return what `cert` says of itself; odd certificates give what they can, none raises.

    `subject` and `issuer` are RFC 4514 strings, `serial` and `fingerprint_sha256` upper-case
    hexadecimal, times aware and in UTC, `san` DNS names and IP addresses as text, `key` such as
    "RSA 2048", "EC secp256r1" or "Ed25519", `signature` such as "ECDSA_WITH_SHA256".
    """
    problems: list[str] = []

    def attempt(part: str, read: Callable[[], T], fallback: T) -> T:
        try:
            return read()
        # Every kind of damage has an exception of its own in the library (ValueError, TypeError,
        # UnsupportedAlgorithm, DuplicateExtension, ...), and none may cost the other parts.
        except Exception as error:
            problems.append(f"{part}: {escape(str(error))}")
            return fallback

    extensions = readable(cert)
    problems += (f"extensions: {escape(problem)}" for problem in extensions.problems)
    san = names_of(extensions)
    subject = attempt("subject", lambda: cert.subject.rfc4514_string(), "")
    no_names: tuple[str, ...] = ()
    common_names = attempt("common name", lambda: _common_names(cert), no_names)
    if any("\0" in text for text in (*common_names, *san)):
        problems.append("a name holds a NUL character, a way to fool careless clients")
    if twice := len(san) - len({text.lower() for text in san}):
        problems.append(f"{twice} of its names are listed more than once")
    algorithm = cert.signature_algorithm_oid
    return Description(
        subject=escape(subject),
        issuer=escape(attempt("issuer", lambda: cert.issuer.rfc4514_string(), "")),
        serial=attempt("serial number", lambda: f"{cert.serial_number:X}", ""),
        not_before=attempt(
            "start of validity", lambda: _in_any_zone(cert.not_valid_before_utc), None
        ),
        not_after=attempt("end of validity", lambda: _in_any_zone(cert.not_valid_after_utc), None),
        san=tuple(escape(text) for text in san),
        key=attempt("key", lambda: _key_text(cert), ""),
        signature=_SIGNATURE_NAMES.get(algorithm, algorithm.dotted_string),
        fingerprint_sha256=cert.fingerprint(hashes.SHA256()).hex().upper(),
        is_ca=_is_ca(extensions),
        self_signed=attempt("own signature", lambda: _is_self_signed(cert), False),
        problems=tuple(problems),
    )


def end_of(cert: x509.Certificate) -> dt.datetime:
    """Return until when a certificate is valid, as `describe` has it."""
    return _in_any_zone(cert.not_valid_after_utc)


def named(cert: x509.Certificate, depth: int) -> str:
    """Return how a sentence begins that is about a certificate of a path."""
    return capital(called(cert, depth))


def _in_any_zone(moment: dt.datetime) -> dt.datetime:
    """Return a time that can be shown in every time zone.

    The end of a certificate without one is the last second of the year 9999 (RFC 5280, 4.1.2.5),
    which east of Greenwich is a year that Python does not know.
    """
    return min(max(moment, _EARLIEST), _LATEST)


def names_of(extensions: Readable) -> tuple[str, ...]:
    """Return the host names and addresses that a certificate is for."""
    names = extensions.get(x509.SubjectAlternativeName) or ()
    return tuple(
        str(name.value) for name in names if isinstance(name, x509.DNSName | x509.IPAddress)
    )


def _common_names(cert: x509.Certificate) -> tuple[str, ...]:
    attributes = cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return tuple(str(attribute.value) for attribute in attributes)


def _key_text(cert: x509.Certificate) -> str:
    try:
        key = cert.public_key()
    except UnsupportedAlgorithm:
        return f"unknown ({cert.public_key_algorithm_oid.dotted_string})"
    kind = type(key).__name__.removesuffix("PublicKey")
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"{kind} {key.curve.name}"
    if isinstance(key, rsa.RSAPublicKey | dsa.DSAPublicKey):
        return f"{kind} {key.key_size}"
    return kind


def _is_ca(extensions: Readable) -> bool:
    constraints = extensions.get(x509.BasicConstraints)
    return constraints is not None and constraints.ca


def _is_self_signed(cert: x509.Certificate) -> bool:
    if cert.issuer != cert.subject:
        return False
    try:
        cert.verify_directly_issued_by(cert)
    except InvalidSignature:
        return False
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The algorithm or the key is one that `cryptography` does not check, SHA-1 above all: many
        # old devices and a fifth of the public roots use it. Then the equal names have to do.
        return True
    return True


def escape(text: str) -> str:
    """Make control characters visible: what a server wrote ends up in mails and on screens."""
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )


def called(cert: x509.Certificate, depth: int) -> str:
    """Return what a certificate of a path is called within a sentence."""
    role = "the CA certificate" if depth else "the server's certificate"
    return f"{role} (depth {depth}, {name_text(cert.subject)})"


def capital(sentence: str) -> str:
    """Return a sentence with a capital at its start."""
    return sentence[0].upper() + sentence[1:]


def name_text(name: x509.Name) -> str:
    """Return a distinguished name as a text (RFC 4514)."""
    return escape(name.rfc4514_string()) or "empty name"
