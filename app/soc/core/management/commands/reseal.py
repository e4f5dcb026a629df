"""Encrypts every stored credential again, with the newest of the site's sealing keys."""

from typing import Any

from django.core.management import BaseCommand, CommandError

from soc.core import sealed


class Command(BaseCommand):
    """The middle step of ``make rotate``: the new key is in place, the old one still is."""

    help = "Encrypts every stored credential again, with the newest sealing key."

    def handle(self, *args: Any, **options: Any) -> None:
        """Seal all of them again.

        Raises:
            CommandError: one cannot be opened with the keys of this service.
        """
        try:
            count = sealed.reseal()
        except sealed.SealProblem as problem:
            raise CommandError(str(problem)) from None
        self.stdout.write(f"{count} stored credentials are sealed with the newest key")
