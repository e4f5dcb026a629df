"""The extensions of a certificate, as far as each can be decoded.

The library decodes all of them or none, and is stricter than TLS clients: of a server's
certificate with a path length (RFC 5280, 4.2.1.9), a frequent mistake that OpenSSL, Go and GnuTLS
accept, it would not even give the names.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

E = TypeVar("E", bound=x509.ExtensionType)

_SEQUENCE = 0x30
_EXTENSIONS = 0xA3
"""The tag of the extensions within a certificate (RFC 5280, 4.1)."""


@dataclass(frozen=True)
class Readable:
    """The extensions that can be decoded, and why others cannot."""

    found: x509.Extensions
    problems: tuple[str, ...] = ()

    def get(self, kind: type[E]) -> E | None:
        """Return the extension of a kind, or None."""
        try:
            return self.found.get_extension_for_class(kind).value
        except x509.ExtensionNotFound:
            return None


# Of one certificate a judgement asks several times, and all endpoints of a site share issuers.
@functools.lru_cache(maxsize=256)
def readable(cert: x509.Certificate) -> Readable:
    """Return what can be read of the extensions of `cert`; nothing raises."""
    # Every kind of damage has an exception of its own in the library.
    try:
        return Readable(cert.extensions)
    except Exception as whole:
        try:
            alone = _one_by_one(cert)
        except Exception:
            alone = Readable(x509.Extensions([]))
        # One that stands there twice can be read alone.
        return alone if alone.problems else Readable(alone.found, (str(whole),))


def _one_by_one(cert: x509.Certificate) -> Readable:
    """Decode each extension as if it were the only one.

    Raises:
        Exception: the certificate around them cannot be decoded either.
    """
    body, *signature = _elements(next(_elements(cert.public_bytes(Encoding.DER)))[2])
    parts = list(_elements(body[2]))
    rest = b"".join(whole for tag, whole, _ in parts if tag != _EXTENSIONS)
    (held,) = (content for tag, _, content in parts if tag == _EXTENSIONS)
    end = b"".join(whole for _, whole, _ in signature)
    found: list[x509.Extension[x509.ExtensionType]] = []
    problems: list[str] = []
    for _, extension, _ in _elements(next(_elements(held))[2]):
        alone = _element(_EXTENSIONS, _element(_SEQUENCE, extension))
        der = _element(_SEQUENCE, _element(_SEQUENCE, rest + alone) + end)
        try:
            found += x509.load_der_x509_certificate(der).extensions
        except Exception as error:
            problems.append(str(error))
    return Readable(x509.Extensions(found), tuple(problems))


def _elements(der: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield the tag, the whole and the content of DER elements (X.690, 8.1 and 10.1)."""
    while der:
        size, start = der[1], 2
        if size >= 0x80:
            start += size - 0x80
            size = int.from_bytes(der[2:start], "big")
        end = start + size
        yield der[0], der[:end], der[start:end]
        der = der[end:]


def _element(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 + len(length)]) + length + content
