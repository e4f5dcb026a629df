"""Django's entry to the core application."""

from django.apps import AppConfig


class CoreConfig(AppConfig):
    """Heartbeats, schedules, housekeeping and checks that every application uses."""

    name = "soc.core"
    verbose_name = "Operations"

    def ready(self) -> None:
        """Register the system checks, and take beat's signs of life."""
        from soc.beat import signals
        from soc.runtime import liveness
        from soc.schedules import checks  # noqa: F401

        signals.ticked.connect(liveness.beat_ticked)
        signals.closed.connect(liveness.beat_closed)

    def set_up(self) -> None:
        """Create the first administrator of a new site."""
        from django.contrib.auth import get_user_model

        from soc.provision.identity import secret

        users = get_user_model().objects
        if not users.exists():
            users.create_superuser("admin", password=secret("admin_password"))
