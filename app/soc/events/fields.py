"""What the fields of the models check, and a type of column."""

from zoneinfo import available_timezones

from django.core.exceptions import ValidationError
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper


def validate_zone(name: str) -> None:
    """Refuse what is no time zone.

    Raises:
        ValidationError: the time-zone database does not know the name.
    """
    if name not in available_timezones():
        raise ValidationError(f"There is no time zone {name!r}.")


class DigestField(models.BinaryField):
    """Sixteen bytes that identify an event; unlike a blob they can be unique."""

    def db_type(self, connection: BaseDatabaseWrapper) -> str:
        """Return a type of fixed length where the database has one."""
        kept = "binary(16)" if connection.vendor == "mysql" else super().db_type(connection)
        return kept or ""
