"""Django's entry to the mail collector."""

from django.apps import AppConfig


class MailCollectorConfig(AppConfig):
    """Follows the mails that robots send each other, and reports what does not arrive."""

    name = "soc.mail_collector"
    verbose_name = "Mail flow"
