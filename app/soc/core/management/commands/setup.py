"""Brings the database of a site up to date; every other service waits for it."""

from typing import Any

from django.apps import apps
from django.core.management import BaseCommand, CommandParser, call_command

from soc.provision import grants


class Command(BaseCommand):
    """Migrate, let each application create what a new site starts with, and check."""

    help = "Migrates and prepares the site's database; safe to run again."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("--take-over", action="store_true", help="as migrate's")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the steps in order; an application takes part with a ``set_up`` of its config."""
        call_command("migrate", interactive=False, verbosity=1, take_over=options["take_over"])
        grants.apply()
        for config in apps.get_app_configs():
            if hasattr(config, "set_up"):
                config.set_up()
        call_command("check", databases=["default"], fail_level="WARNING", deploy=True)
