"""Checks of the site's files: env file, secrets, certificates, and what the servers present."""

import socket
import ssl
import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from soc.doctor.facts import Facts
from soc.doctor.findings import Finding, critical, warning
from soc.provision import pki, site
from soc.provision.identity import OWN_CERTIFICATE

SOON = timedelta(days=7)
AUTHORITY_SOON = timedelta(days=90)
OWN_SOON = timedelta(days=30)
PORTS = {"web": 8443, "flower": 5555, "rabbitmq": 5671, "mariadb": 3306}
CONNECT_WITHIN = 2.0
"""Seconds for a connection, and for each answer on it."""

SSL_REQUEST = struct.pack("<HBBIIB23x", 32, 0, 1, 0x0000_8A00, 1 << 24, 45)
"""What asks MariaDB for TLS: length, sequence, capabilities (PROTOCOL_41, SSL, SECURE_CONNECTION),
largest packet, utf8mb4 (MariaDB documentation, "Connecting": SSLRequest packet)."""


def check(facts: Facts) -> Iterator[Finding]:
    """Yield what is wrong with the files of the site and the certificates that are served."""
    for problem in site.problems(facts.site, "containers", ports=False):
        yield critical("site", problem, "the next `make up` would be refused")
    yield from _missing(facts)
    now = datetime.now(UTC)
    for path in sorted(facts.site.folder.glob("*/cert.pem")):
        yield from _dates(path, now, SOON, "`make certs` renews it and has the servers load it")
    for path in sorted(facts.site.folder.glob(f"*/{OWN_CERTIFICATE}")):
        yield from _dates(path, now, OWN_SOON, "put a new one there, then `make up`")
    authority = facts.site.folder / "ca" / "ca.pem"
    if authority.exists():
        yield from _dates(authority, now, AUTHORITY_SOON, "`make rotate` makes a new CA")
    yield from _served(facts)


def _missing(facts: Facts) -> Iterator[Finding]:
    if not facts.site.folder.is_dir():
        text = f"{facts.site.folder} does not exist: the site has neither secrets nor certificates"
        yield critical("site", text, "restore it from a backup; `make up` would make new ones")
        return
    wanted = [(service, name) for service in site.SERVICES for name in ("cert.pem", "key.pem")]
    wanted += [(service, "sealing_keys") for service in site.SEALERS]
    for service, name in wanted:
        path = facts.site.folder / service / name
        if not path.exists():
            yield critical("site", f"{path} is missing", "restore it from a backup, then `make up`")
    keys = {
        path.read_bytes()
        for service in site.SEALERS
        if (path := facts.site.folder / service / "sealing_keys").exists()
    }
    if len(keys) > 1:
        text = "the services have different sealing keys: stored credentials cannot be read by all"
        yield critical("site", text, "`make up` gives all the keys of web")


def _load(path: Path) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())[0]
    except (OSError, ValueError):
        return None


def _dates(path: Path, now: datetime, soon: timedelta, todo: str) -> Iterator[Finding]:
    certificate = _load(path)
    if certificate is None:
        yield critical("certificates", f"{path} is not a certificate", todo)
        return
    left = certificate.not_valid_after_utc - now
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    if certificate.not_valid_before_utc > now:
        text = f"{path} is valid only from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on"
        yield critical("certificates", text, "set the host's clock right")
    elif left < timedelta(0):
        text = f"{path} expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
        yield critical("certificates", text, todo)
    elif left < min(soon, lifetime / 2):
        yield critical("certificates", f"{path} expires in {left.days} days", todo)
    elif left < lifetime / pki.RENEWAL_SHARE:
        yield warning("certificates", f"{path} expires in {left.days} days", todo)


def _served(facts: Facts) -> Iterator[Finding]:
    for service, port in PORTS.items():
        own = facts.site.folder / service / OWN_CERTIFICATE
        path = own if own.exists() else facts.site.folder / service / "cert.pem"
        certificate = _load(path)
        if certificate is None or not facts.runs(service):
            continue
        served = _certificate_of(service, port)
        if served is None:
            yield critical(
                "certificates",
                f"{service} answers no TLS on port {port}",
                f"`make logs S={service}`",
                follows=True,
            )
        elif served != certificate.public_bytes(Encoding.DER):
            yield _not_loaded(service, path)


def _not_loaded(service: str, path: Path) -> Finding:
    return critical(
        "certificates",
        f"{service} presents another certificate than {path}",
        f"`make certs` has the servers load it; else `docker compose restart {service}`",
    )


def _certificate_of(host: str, port: int) -> bytes | None:
    """Return what a server presents; whether it is to be trusted is not asked here."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), CONNECT_WITHIN) as connection:
            if port == PORTS["mariadb"]:
                # Its greeting comes first, in one packet.
                connection.recv(4096)
                connection.sendall(SSL_REQUEST)
            with context.wrap_socket(connection, server_hostname=host) as wrapped:
                return wrapped.getpeercert(binary_form=True)
    except OSError:
        return None
