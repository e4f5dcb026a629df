"""The site's private certificate authority and one certificate per service (RFC 5280)."""

import ipaddress
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_LIFETIME = timedelta(days=3650)
SERVICE_LIFETIME = timedelta(days=397)
RENEWAL_SHARE = 6
"""A certificate is renewed in the last sixth of its lifetime: 66 days of 397."""
# A clock that is a little behind must not find a fresh certificate "not yet valid".
_CLOCK_SKEW = timedelta(minutes=5)


@dataclass(frozen=True)
class KeyPair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        """The certificate in PEM form."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The private key in unencrypted PKCS #8 PEM form."""
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    @classmethod
    def load(cls, certificate: Path, key: Path) -> "KeyPair":
        """Read an identity from two PEM files.

        Raises:
            OSError: a file cannot be read.
            ValueError: a file is not PEM, or the key is not an elliptic-curve key.
        """
        loaded_key = serialization.load_pem_private_key(key.read_bytes(), password=None)
        if not isinstance(loaded_key, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{key} is not an elliptic-curve key")
        return cls(x509.load_pem_x509_certificate(certificate.read_bytes()), loaded_key)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, lifetime: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def create_authority(site: str) -> KeyPair:
    """Create the self-signed CA of a site; it may issue service certificates only."""
    key = ec.generate_private_key(ec.SECP256R1())
    # Two CAs of a site are trusted at a time while it changes to the second.
    subject = _name(f"SOC site CA {site} of {datetime.now(UTC):%Y-%m-%d %H:%M:%S}")
    certificate = (
        _builder(subject, subject, key, CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return KeyPair(certificate, key)


def issue(
    authority: KeyPair,
    service: str,
    hostnames: Iterable[str],
    lifetime: timedelta = SERVICE_LIFETIME,
) -> KeyPair:
    """Issue a certificate that serves under ``hostnames`` and logs in as ``service`` (its CN)."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.certificate
    certificate = (
        _builder(_name(service), issuer.subject, key, lifetime)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            critical=False,
        )
        .add_extension(
            x509.SubjectAlternativeName([_general_name(name) for name in hostnames]),
            critical=False,
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
            ),
            critical=False,
        )
        .sign(authority.key, hashes.SHA256())
    )
    return KeyPair(certificate, key)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def is_current(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Return whether a service's certificate is from this authority and not near its end."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, InvalidSignature):
        return False
    remaining = certificate.not_valid_after_utc - datetime.now(UTC)
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return remaining > lifetime / RENEWAL_SHARE


def names(certificate: x509.Certificate) -> set[str]:
    """Return the host names and addresses that a certificate is for."""
    entries = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(entry.value) for entry in entries}


def problems_of_own(
    certificate: Path, key: Path, hostnames: Iterable[str], now: datetime | None = None
) -> list[str]:
    """Return what keeps browsers or us from using a certificate that a site brings itself.

    The file holds the server's certificate first, then each issuer of the one before it; the
    root may be left out (RFC 8446, 4.4.2).
    """
    try:
        chain = x509.load_pem_x509_certificates(certificate.read_bytes())
    except ValueError:
        return ["is no PEM certificate"]
    try:
        private = serialization.load_pem_private_key(key.read_bytes(), password=None)
    except (ValueError, TypeError):
        return [f"has in {key.name} no PEM key without a password"]
    leaf = chain[0]
    problems = []
    if private.public_key() != leaf.public_key():
        problems.append(f"does not belong to the key in {key.name}")
    for position, (issued, issuer) in enumerate(itertools.pairwise(chain), start=2):
        try:
            issued.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature):
            problems.append(f"is out of order: certificate {position} did not issue the one before")
    problems += _not_valid(chain, now or datetime.now(UTC))
    try:
        covered = names(leaf)
    except x509.ExtensionNotFound:
        covered = set()
    if missing := [name for name in hostnames if not _covers(covered, name)]:
        problems.append(f"is not for {', '.join(missing)}, which SOC_HOSTNAMES names")
    return problems


def _not_valid(chain: Iterable[x509.Certificate], now: datetime) -> Iterator[str]:
    for certificate in chain:
        subject = certificate.subject.rfc4514_string()
        if now > certificate.not_valid_after_utc:
            yield f"holds {subject}, which expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
        elif now < certificate.not_valid_before_utc:
            yield (
                f"holds {subject}, which is not valid before "
                f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
            )


def _covers(covered: set[str], name: str) -> bool:
    """Return whether a name or its wildcard is covered (RFC 9525, 6.3)."""
    wildcard = "*." + name.partition(".")[2]
    return not {name.lower(), wildcard.lower()}.isdisjoint(entry.lower() for entry in covered)
