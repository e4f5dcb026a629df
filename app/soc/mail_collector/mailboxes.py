"""What the name of a mailbox says: its mail server and its database.

The pattern is plain text with placeholders, such as the default

    {server}-{database}-{name}@{domain}

by which ``mail1-db2-robot07@north.example`` lies on the server mail1, in the database db2. A
placeholder takes everything up to the text that follows it, and {name} whatever is left.
"""

import re
from dataclasses import dataclass

from django.core.exceptions import ValidationError

DEFAULT = "{server}-{database}-{name}@{domain}"
SAMPLE = "mail1-db2-robot07@north.example"

_NAMES = ("server", "database", "name", "domain")
_NEEDED = ("server", "database")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class Place:
    """Where a mailbox lies; nothing is known of one whose name does not match."""

    server: str = ""
    database: str = ""


def validate(pattern: str) -> None:
    """Check a pattern.

    Raises:
        ValidationError: it could not tell server and database apart; the message says why.
    """
    names = _PLACEHOLDER.findall(pattern)
    rest = _PLACEHOLDER.sub("\0", pattern)
    if "{" in rest or "}" in rest:
        raise ValidationError("A brace stands alone: placeholders are written {server}.")
    if unknown := [name for name in names if name not in _NAMES]:
        known = ", ".join(f"{{{name}}}" for name in _NAMES)
        raise ValidationError(f"{{{unknown[0]}}} is unknown; there are {known}.")
    if missing := [name for name in _NEEDED if name not in names]:
        raise ValidationError(f"{{{missing[0]}}} is missing.")
    if len(set(names)) < len(names):
        raise ValidationError("A placeholder stands twice.")
    if "\0\0" in rest:
        raise ValidationError("Two placeholders touch: nothing says where the first one ends.")
    if "@" not in rest:
        raise ValidationError("There is no @ as every address has one.")


def place(address: str, pattern: str) -> Place:
    """Return the place of a mailbox by a valid pattern."""
    match = _compiled(pattern).fullmatch(address)
    return Place(match["server"], match["database"]) if match else Place()


def _compiled(pattern: str) -> re.Pattern[str]:
    """Return the pattern as a regular expression that never tries a letter twice."""
    first, *parts = _PLACEHOLDER.split(pattern.lower())
    expression = re.escape(first)
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        expression += f"(?P<{name}>[^@{re.escape(text[:1])}]+){re.escape(text)}"
    return re.compile(expression)
