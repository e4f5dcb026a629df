"""Django's entry to the event stream."""

from django.apps import AppConfig


class EventsConfig(AppConfig):
    """Takes in the Windows events that robots ship, each once."""

    name = "soc.events"
    verbose_name = "Event stream"

    def ready(self) -> None:
        """Give simulated robots the plainest thing to do."""
        from soc.events import simulation

        simulation.register("heartbeat", 60, simulation.say_something)
