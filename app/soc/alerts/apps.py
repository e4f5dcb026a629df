"""Django's entry to the alerts application."""

from django.apps import AppConfig
from django.db.models.signals import post_delete, pre_save


class AlertsConfig(AppConfig):
    """The life of alerts: from the conditions that applications report to their end."""

    name = "soc.alerts"
    verbose_name = "Alerts"

    def ready(self) -> None:
        """Watch the subscriptions that an alert is about."""
        from soc.alerts import own
        from soc.notify.models import Subscription

        pre_save.connect(own.before_saving_subscription, sender=Subscription)
        post_delete.connect(own.after_deleting_subscription, sender=Subscription)
