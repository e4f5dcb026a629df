"""Django's entry to the mail collector."""

from django.apps import AppConfig


class MailCollectorConfig(AppConfig):
    """Follows the mails that robots send each other, and reports what does not arrive."""

    name = "soc.mail_collector"
    verbose_name = "Mail flow"

    def ready(self) -> None:
        """Have the stream's events read, and simulated robots send mail."""
        from soc.events import readers
        from soc.events import simulation as robots
        from soc.mail_collector import reader, simulation
        from soc.mail_collector.models import MailEvent

        readers.register(reader.KIND, MailEvent, reader.read)
        robots.register(reader.KIND, simulation.PER_HOUR, simulation.make)
