"""Who a service is at the database, and what it finds in its own folder of secrets."""

from django.conf import settings

TLS_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""The TLS 1.2 suites of our web servers: forward secrecy and authenticated encryption only."""


def database_user(service: str) -> str:
    """Return the user as whom a service logs in at the database, by its certificate."""
    return f"soc_{service.replace('-', '_')}"


def secret(name: str) -> str:
    """Return one of this service's secrets.

    Raises:
        OSError: the service has no such secret, or may not read it.
    """
    return (settings.IDENTITY / name).read_text(encoding="utf-8").strip()
