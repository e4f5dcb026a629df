"""Moments as people read them, and the rules of time zones behind them."""

import zoneinfo
from datetime import UTC, datetime, time, tzinfo
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from django.core.exceptions import ValidationError
from django.utils import timezone


def local(moment: datetime) -> str:
    """Return a moment in the site's time zone, with the zone's name."""
    return f"{timezone.localtime(moment):%Y-%m-%d %H:%M:%S %Z}"


def times_of_day(value: str) -> list[time]:
    """Return the times of day of a comma separated list, such as "07:45, 15:45".

    Raises:
        ValueError: one is no time.
    """
    parts = filter(None, (part.strip() for part in value.split(",")))
    return [datetime.strptime(part, "%H:%M").time() for part in parts]


def validate_times(value: str) -> None:
    """Check a list of times of day.

    Raises:
        ValidationError: one is no time.
    """
    try:
        times_of_day(value)
    except ValueError as error:
        raise ValidationError(f"Not times of day such as 07:45, 15:45: {error}") from error


def moment(wall: datetime, zone: tzinfo | None = None) -> datetime:
    """Return the moment of a time on the wall clock in a zone, the site's by default, in UTC.

    As RFC 5545, 3.3.5 says: a time that the clocks skip is taken with the offset before the gap,
    one that comes twice is the first. That is the fold of 0 of PEP 495.
    """
    return timezone.make_aware(wall, zone).astimezone(UTC)


def zone_rules(name: str) -> str:
    """Return where a time zone's rules come from and their version: "tzdata 2026f".

    zoneinfo prefers the system's files to the locked package as long as ``TZPATH`` names a folder
    (PEP 615), and those can be years old: image and embedded stack set PYTHONTZPATH to nothing.
    """
    for folder in map(Path, zoneinfo.TZPATH):
        if (folder / name).is_file():
            source = folder / "tzdata.zi"
            return f"{folder} {_version(source) if source.is_file() else 'unknown'}"
    return f"tzdata {_version(files('tzdata') / 'zoneinfo' / 'tzdata.zi')}"


def _version(source: Traversable) -> str:
    # Its first line is "# version 2026f".
    return source.read_text().partition("\n")[0].split()[-1]
