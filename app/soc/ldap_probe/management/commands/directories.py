"""Directory servers from the command line: import a table, probe one now."""

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from soc.ldap_probe import importing
from soc.ldap_probe.models import DirectoryServer


class Command(BaseCommand):
    """Directory servers: import FILE [--dry-run] | probe HOST[:PORT]."""

    help = "Imports directory servers, or makes one due."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare what can be done."""
        actions = parser.add_subparsers(dest="action", required=True)
        table = actions.add_parser("import", help="import a table, CSV or JSON")
        table.add_argument("file", help="the table; - for the standard input")
        table.add_argument("--dry-run", action="store_true", help="only say what would be done")
        probe = actions.add_parser("probe", help="have a server probed within 10 s")
        probe.add_argument("server", help="host or host:port")

    def handle(self, **options: Any) -> None:
        """Do it.

        Raises:
            CommandError: a line is wrong, or there is no such file or server.
        """
        match options["action"]:
            case "import":
                self._import(options["file"], dry=options["dry_run"])
            case "probe":
                self._probe(options["server"])

    def _import(self, file: str, *, dry: bool) -> None:
        try:
            text = sys.stdin.read() if file == "-" else Path(file).read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"{file} cannot be read: {error}") from error
        done = importing.run(text, dry=dry)
        for line in done.lines:
            self.stdout.write(f"{line.number:>6} {line.action:<8} {line.name} {line.said}".rstrip())
        if done.wrong:
            raise CommandError(done.in_words)
        self.stdout.write(done.in_words)

    def _probe(self, name: str) -> None:
        host, _, port = name.partition(":")
        servers = DirectoryServer.objects.filter(host=host, enabled=True)
        if port:
            servers = servers.filter(port=port) if port.isdecimal() else servers.none()
        if not servers.update(next_probe_at=timezone.now()):
            raise CommandError(f"{name} is not watched.")
        self.stdout.write(f"{name} is due: the next round takes it.")
