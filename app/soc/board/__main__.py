"""Prints the board's headline, a problem a line: python3 -m soc.board, for `make status`."""

import os

import django


def main() -> None:
    """Print what needs attention; nothing if nothing does."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "soc.settings")
    django.setup()

    from django.utils import timezone

    from soc.board import data

    for problem in data.read(timezone.now()).problems:
        print(problem.text)


if __name__ == "__main__":
    main()
