"""A throw-away certificate authority for tests: roots, intermediates and leaves of any shape."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

Key = (
    ec.EllipticCurvePrivateKey
    | rsa.RSAPrivateKey
    | ed25519.Ed25519PrivateKey
    | mldsa.MLDSA65PrivateKey
)

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Issued:
    """A certificate and its private key."""

    cert: x509.Certificate
    key: Key

    @property
    def cert_pem(self) -> bytes:
        return self.cert.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


def issue(
    common_name: str,
    issuer: Issued | None = None,
    *,
    ca: bool = False,
    san: Sequence[str | x509.GeneralName] = (),
    organization: str = "",
    not_before: dt.datetime = NOW - DAY,
    not_after: dt.datetime | None = None,
    key: Key | None = None,
    key_identifiers: bool = True,
    path_length: int | None = None,
    ca_issuers: str = "",
    constraints: x509.ExtensionType | None = None,
    extensions: Iterable[tuple[x509.ExtensionType, bool]] = (),
) -> Issued:
    """Return a certificate signed by `issuer`, or by itself when there is none.

    Servers' certificates end after 30 days, authorities after ten years.
    `san` takes DNS names and IP addresses as text, or ready-made general names; `constraints`
    replaces the basic ones; `extensions` takes (extension, critical) pairs to add.
    `key_identifiers=False` leaves out SKI and AKI, as old private CAs do.
    """
    not_after = not_after or NOW + (3650 if ca else 30) * DAY
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = _name(common_name, organization)
    signer = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.cert.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(
            constraints or x509.BasicConstraints(ca=ca, path_length=path_length), critical=True
        )
    )
    if key_identifiers:
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
        ).add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    if san:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_general_name(entry) for entry in san]), critical=False
        )
    if ca_issuers:
        location = x509.UniformResourceIdentifier(ca_issuers)
        access = x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, location)
        builder = builder.add_extension(x509.AuthorityInformationAccess([access]), critical=False)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    has_own_hash = isinstance(signer, ed25519.Ed25519PrivateKey | mldsa.MLDSA65PrivateKey)
    digest = None if has_own_hash else hashes.SHA256()
    return Issued(builder.sign(signer, digest), key)


def write_server_files(folder: Path, leaf: Issued, *others: Issued) -> tuple[Path, Path]:
    """Write `leaf` followed by `others` as one chain file; return the paths of chain and key."""
    chain, key = folder / "chain.pem", folder / "key.pem"
    write_bundle(chain, leaf, *others)
    key.write_bytes(leaf.key_pem)
    return chain, key


def write_bundle(path: Path, *certificates: Issued) -> Path:
    """Write the certificates as PEM to `path` and return it."""
    path.write_bytes(b"".join(issued.cert_pem for issued in certificates))
    return path


def _name(common_name: str, organization: str) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


def _general_name(entry: str | x509.GeneralName) -> x509.GeneralName:
    if isinstance(entry, x509.GeneralName):
        return entry
    try:
        return x509.IPAddress(ipaddress.ip_address(entry))
    except ValueError:
        return x509.DNSName(entry)
