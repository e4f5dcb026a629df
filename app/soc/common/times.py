"""Moments as people read them, and the rules of time zones behind them."""

import zoneinfo
from datetime import datetime
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from django.utils import timezone


def local(moment: datetime) -> str:
    """Return a moment in the site's time zone, with the zone's name."""
    return f"{timezone.localtime(moment):%Y-%m-%d %H:%M:%S %Z}"


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
