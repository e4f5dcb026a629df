"""The inventory from the command line: import a table of robots, locations or others."""

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from soc.inventory import importing
from soc.inventory.models import InventoryKind
from soc.inventory.reading import SourceProblem, parse
from soc.inventory.targets import compare


class Command(BaseCommand):
    """Inventory: import KIND FILE [--dry-run]."""

    help = "Imports a table, CSV or JSON, of robots, locations, endpoints or directories."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare what can be done."""
        actions = parser.add_subparsers(dest="action", required=True)
        table = actions.add_parser("import", help="import a table, CSV or JSON")
        table.add_argument("kind", choices=InventoryKind.values)
        table.add_argument("file", help="the table; - for the standard input")
        table.add_argument("--dry-run", action="store_true", help="only say what would be done")

    def handle(self, **options: Any) -> None:
        """Do it, all of it or nothing.

        Raises:
            CommandError: a line is wrong, or there is no such file.
        """
        file = options["file"]
        try:
            text = sys.stdin.read() if file == "-" else Path(file).read_text("utf-8-sig")
            with transaction.atomic():
                lines = compare(options["kind"], parse(text))
                wrong = sum(line.action == "wrong" for line in lines)
                if not wrong and not options["dry_run"]:
                    importing.write(lines)
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"{file} cannot be read: {error}") from error
        except SourceProblem as problem:
            raise CommandError(str(problem)) from problem
        for line in lines:
            if line.action != "same":
                self.stdout.write(f"{line.action:<8} {line.key} {line.said}".rstrip())
        if wrong:
            raise CommandError(f"Nothing is imported: {wrong} of {len(lines)} lines are wrong.")
        counts = [
            f"{sum(line.action == action for line in lines)} {action}"
            for action in ("created", "changed", "same")
        ]
        would = "This would import" if options["dry_run"] else "Imported"
        self.stdout.write(f"{would}: {', '.join(counts)}.")
