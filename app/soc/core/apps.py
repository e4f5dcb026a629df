"""Django's entry to the core application."""

from django.apps import AppConfig
from django.conf import settings


class CoreConfig(AppConfig):
    """Heartbeats, schedules, housekeeping and checks that every application uses."""

    name = "soc.core"
    verbose_name = "Operations"

    def ready(self) -> None:
        """Register the system checks."""
        from soc.core import checks  # noqa: F401

    def set_up(self) -> None:
        """Create the first administrator of a new site."""
        from django.contrib.auth import get_user_model

        users = get_user_model().objects
        if not users.exists():
            password = (settings.IDENTITY / "admin_password").read_text(encoding="utf-8")
            users.create_superuser("admin", password=password.strip())
