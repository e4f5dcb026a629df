"""Django's entry to the application."""

from django.apps import AppConfig


class DemoConfig(AppConfig):
    """Watches counters."""

    name = "soc.demo"
    verbose_name = "Demo"
