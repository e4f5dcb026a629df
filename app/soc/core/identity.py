"""What a service finds in its own folder of secrets."""

from django.conf import settings


def secret(name: str) -> str:
    """Return one of this service's secrets.

    Raises:
        OSError: the service has no such secret, or may not read it.
    """
    return (settings.IDENTITY / name).read_text(encoding="utf-8").strip()
