"""Time-zone rules: those of the locked package, not of the system."""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import tzdata

from soc.common import times

HOUR = timedelta(hours=1)


@pytest.fixture
def no_path() -> Iterator[None]:
    """What an empty PYTHONTZPATH does."""
    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath(to=())
    yield
    zoneinfo.reset_tzpath(to=before)


def test_the_locked_rules_are_named(no_path: None) -> None:
    assert times.zone_rules("Europe/Berlin") == f"tzdata {tzdata.IANA_VERSION}"


def test_the_systems_rules_are_named(no_path: None, tmp_path: Path) -> None:
    zoneinfo.reset_tzpath(to=[str(tmp_path)])
    assert times.zone_rules("Here") == f"tzdata {tzdata.IANA_VERSION}"
    (tmp_path / "Here").touch()
    assert times.zone_rules("Here") == f"{tmp_path} unknown"
    (tmp_path / "tzdata.zi").write_text("# version 2025b\n# more")
    assert times.zone_rules("Here") == f"{tmp_path} 2025b"


@pytest.mark.parametrize(
    ("zone", "hours"),
    [("America/Vancouver", -7), ("Europe/Berlin", 1)],
)
def test_the_rules_of_this_winter(no_path: None, zone: str, hours: int) -> None:
    """British Columbia stays on summer time from 2026 on; Debian's 2025b does not know it."""
    moment = datetime(2026, 12, 1, tzinfo=zoneinfo.ZoneInfo.no_cache(zone))
    assert moment.utcoffset() == hours * HOUR
