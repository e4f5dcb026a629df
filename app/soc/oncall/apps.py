"""Django's entry to the on-call rotas."""

from django.apps import AppConfig


class OnCallConfig(AppConfig):
    """Who is on call, when."""

    name = "soc.oncall"
    verbose_name = "On call"
