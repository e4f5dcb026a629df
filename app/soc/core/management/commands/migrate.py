"""Django's ``migrate``, which goes on where a killed one has stopped (soc.core.resumable)."""

from functools import partial
from typing import Any
from unittest.mock import patch

from django.core.management import CommandParser
from django.core.management.commands import migrate
from django.db import connections

from soc.core import resumable


class Command(migrate.Command):
    """Applies migrations so that they may be interrupted."""

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare Django's options and ours."""
        super().add_arguments(parser)
        parser.add_argument(
            "--take-over",
            action="store_true",
            help="go on with a migration that a version without a journal has left half done: "
            "what is there already counts as done",
        )

    def handle(self, *args: Any, take_over: bool = False, **options: Any) -> None:
        """Migrate; on SQLite, which rolls a migration back as a whole, as Django does."""
        connection = connections[options["database"]]
        if connection.vendor != "mysql":
            super().handle(*args, **options)
            return
        # Django's command can be given an executor in no other way.
        executor = partial(resumable.Executor, take_over=take_over)
        with (
            patch.object(migrate, "MigrationExecutor", executor),
            resumable.journal(connection, self.stdout.write),
        ):
            super().handle(*args, **options)
