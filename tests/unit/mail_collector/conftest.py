"""The event stream with a few robots."""

from __future__ import annotations

from datetime import timedelta

import pytest

from mailing import Clock
from robots import Stream
from soc.mail_collector.models import MailSettings


@pytest.fixture
def stream(db: None, clock: Clock) -> Stream:
    """A stream with `other` at a site of its own, and limits that are soon reached."""
    MailSettings.objects.update(
        bot_warning=timedelta(minutes=20),
        bot_critical=timedelta(minutes=40),
        server_warning=timedelta(minutes=20),
        server_critical=timedelta(minutes=40),
        route_unverified=timedelta(minutes=40),
    )
    stream = Stream(clock)
    stream.place("south", "other")
    return stream
