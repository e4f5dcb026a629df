"""What every page knows of its site."""

from django.conf import settings
from django.http import HttpRequest


def site(request: HttpRequest) -> dict[str, str]:
    """Return the site's name and time zone for templates."""
    return {"site_name": settings.SITE["SOC_SITE"], "site_time_zone": settings.TIME_ZONE}
