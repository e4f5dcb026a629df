"""Moments as people read them."""

from datetime import datetime

from django.utils import timezone


def local(moment: datetime) -> str:
    """Return a moment in the site's time zone, with the zone's name."""
    return f"{timezone.localtime(moment):%Y-%m-%d %H:%M:%S %Z}"
