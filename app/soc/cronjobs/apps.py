"""Django's entry to the cron jobs of others."""

from django.apps import AppConfig


class CronJobsConfig(AppConfig):
    """Watches jobs that run elsewhere and ask for an address when they have run."""

    name = "soc.cronjobs"
    verbose_name = "Cron jobs"
