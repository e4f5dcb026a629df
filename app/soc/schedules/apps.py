"""Django's entry to the schedules."""

from django.apps import AppConfig


class SchedulesConfig(AppConfig):
    """The admin of django-celery-beat's models, and schedules that applications bring."""

    name = "soc.schedules"
    verbose_name = "Schedules"
