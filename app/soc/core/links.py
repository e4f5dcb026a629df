"""Links into this site for mails, which know no request."""

from django.conf import settings
from django.urls import reverse


def absolute(view: str, *arguments: object) -> str:
    """Return the https URL of a page as browsers reach it."""
    return with_host(reverse(view, args=arguments))


def with_host(link: str) -> str:
    """Return a link with this site before it, if it is a path such as ``/robots/``."""
    if not link.startswith("/") or link.startswith("//"):
        return link
    return f"https://{settings.ALLOWED_HOSTS[0]}:{settings.SITE['SOC_WEB_PORT']}{link}"
