"""Who a service is at the database, and what it finds in its own folder of secrets."""

import os
from pathlib import Path

TLS_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""The TLS 1.2 suites of our web servers: forward secrecy and authenticated encryption only."""

OWN_CERTIFICATE, OWN_KEY = "own-cert.pem", "own-key.pem"
"""What a site may put into the folder of a web server, to have browsers trust it."""


def database_user(service: str) -> str:
    """Return the user as whom a service logs in at the database, by its certificate."""
    return f"soc_{service.replace('-', '_')}"


def server_certificate(folder: Path) -> tuple[Path, Path]:
    """Return the certificate and the key that a web server presents: the site's if it brought any.

    Not in the embedded stack: it listens at addresses for which nobody issues certificates.
    """
    if os.environ["SOC_STACK"] == "containers" and (folder / OWN_CERTIFICATE).exists():
        return folder / OWN_CERTIFICATE, folder / OWN_KEY
    return folder / "cert.pem", folder / "key.pem"


def secret(name: str) -> str:
    """Return one of this service's secrets.

    Raises:
        OSError: the service has no such secret, or may not read it.
    """
    from django.conf import settings

    return (settings.IDENTITY / name).read_text(encoding="utf-8").strip()
