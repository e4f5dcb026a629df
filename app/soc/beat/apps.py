"""Django's entry to the scheduler."""

from django.apps import AppConfig


class BeatConfig(AppConfig):
    """A scheduler for Celery beat on django-celery-beat's models."""

    name = "soc.beat"
    label = "soc_beat"
    verbose_name = "Beat"
    default_auto_field = "django.db.models.BigAutoField"
