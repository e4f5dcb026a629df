"""Makes, lists and revokes the tokens of the API."""

from argparse import ArgumentTypeError
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.management import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from soc.core import tokens
from soc.core.models import ApiToken

LONGEST_LIFE = 3650
"""Days that a token with an end may live."""


def _days(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= LONGEST_LIFE:
        raise ArgumentTypeError(f"{text!r} is no number of days from 1 to {LONGEST_LIFE}")
    return int(text)


class Command(BaseCommand):
    """Tokens from the command line; only ``create`` ever shows a secret."""

    help = "Makes, lists and revokes the tokens of the API."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the three actions."""
        actions = parser.add_subparsers(dest="action", required=True)
        create = actions.add_parser("create", help="make a token and print its secret once")
        create.add_argument("name", help="where it is used, such as the host or the script")
        create.add_argument("--user", required=True, help="whose rights it has")
        create.add_argument("--days", type=_days, help="how long it works; without: for ever")
        actions.add_parser("list", help="show all tokens, without their secrets")
        revoke = actions.add_parser("revoke", help="disable a token")
        revoke.add_argument("name")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do one of the actions.

        Raises:
            CommandError: the name or the user will not do.
        """
        match options["action"]:
            case "create":
                self._create(options["name"], options["user"], options["days"])
            case "list":
                self._list()
            case "revoke":
                self._revoke(options["name"])

    def _create(self, name: str, username: str, days: int | None) -> None:
        user = User.objects.filter(username=username).first()
        if user is None:
            raise CommandError(f"There is no user {username!r}; make one in the admin first.")
        expires_at = timezone.now() + timedelta(days=days) if days else None
        try:
            ApiToken(name=name, user=user).full_clean(exclude=["digest"])
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from None
        secret = tokens.create(name, user, expires_at)
        self.stderr.write(f"It may do what {user} may do. Nobody can show it again:")
        self.stdout.write(secret)

    def _list(self) -> None:
        for token in ApiToken.objects.select_related("user"):
            until = f"until {token.expires_at:%Y-%m-%d}" if token.expires_at else "for ever"
            used = f"used {token.last_used_at:%Y-%m-%d %H:%M}" if token.last_used_at else "unused"
            self.stdout.write(f"{token.name}  {token.user}  {token.state}  {until}  {used}")

    def _revoke(self, name: str) -> None:
        if not ApiToken.objects.filter(name=name).update(enabled=False):
            names = ", ".join(ApiToken.objects.values_list("name", flat=True)) or "none"
            raise CommandError(f"There is no token {name!r}; there are: {names}.")
        self.stdout.write(f"{name} no longer works.")
