"""The event stream with a few robots."""

from __future__ import annotations

import pytest

from mailing import Clock
from robots import Stream


@pytest.fixture
def stream(db: None, clock: Clock) -> Stream:
    """A stream with `other` at a site of its own."""
    stream = Stream(clock)
    stream.place("south", "other")
    return stream
