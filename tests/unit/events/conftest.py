"""What the tests of the event stream share: a source that is allowed."""

from __future__ import annotations

import pytest

from soc.events.ingest import Ingest
from soc.events.models import EventSource
from winlogbeat import CHANNEL, PROVIDER


@pytest.fixture
def source(db: None) -> EventSource:
    """The source of the test documents, which is allowed."""
    return EventSource.objects.create(provider=PROVIDER, channel=CHANNEL, allowed=True)


@pytest.fixture
def ingest(source: EventSource) -> Ingest:
    return Ingest("test")
