"""Links into this site for mails, which know no request."""

from django.conf import settings
from django.urls import reverse


def absolute(view: str, *arguments: object) -> str:
    """Return the https URL of a page as browsers reach it."""
    host = settings.ALLOWED_HOSTS[0]
    return f"https://{host}:{settings.SITE['SOC_WEB_PORT']}{reverse(view, args=arguments)}"
