"""Django's entry to the notify application."""

from django.apps import AppConfig
from django.conf import settings


class NotifyConfig(AppConfig):
    """Subscriptions and the mail that goes out to them."""

    name = "soc.notify"
    verbose_name = "Notifications"

    def set_up(self) -> None:
        """Create the first subscription of a new site."""
        from soc.notify.models import Subscription

        if not Subscription.objects.exists():
            Subscription.objects.create(
                name="operations", recipients="\n".join(settings.MAIL_TO), tags="SOC"
            )
