"""Django's entry to the alerts application."""

from django.apps import AppConfig


class AlertsConfig(AppConfig):
    """The life of alerts: from the conditions that applications report to their end."""

    name = "soc.alerts"
    verbose_name = "Alerts"
