"""Django's entry to the robots' logons."""

from django.apps import AppConfig


class LogonsConfig(AppConfig):
    """Watches the logons of robots at published desktops."""

    name = "soc.logons"
    verbose_name = "Logons"
