"""Django's entry to the robots' logons."""

from django.apps import AppConfig


class LogonsConfig(AppConfig):
    """Watches the logons of robots at published desktops."""

    name = "soc.logons"
    verbose_name = "Logons"

    def ready(self) -> None:
        """Have the stream's events read, and simulated robots log on."""
        from soc.events import readers
        from soc.events import simulation as robots
        from soc.logons import reader, simulation
        from soc.logons.models import LogonEvent

        readers.register(reader.KIND, LogonEvent, reader.read)
        robots.register(reader.KIND, simulation.PER_HOUR, simulation.make)
