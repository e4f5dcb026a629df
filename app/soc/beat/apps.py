"""Django's entry to the scheduler."""

from django.apps import AppConfig

from soc.beat.tls import separate_connections


class BeatConfig(AppConfig):
    """A scheduler for Celery beat on django-celery-beat's models."""

    name = "soc.beat"
    label = "soc_beat"
    verbose_name = "Beat"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Keep a broker's connection that broke from breaking the next one of its thread."""
        separate_connections()
