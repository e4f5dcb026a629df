"""What is too old goes, from the front of the table and a little at a time."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from django.utils import timezone

from soc.events import retention, tasks
from soc.events.ingest import Ingest
from soc.events.models import Event, StreamSettings
from winlogbeat import event, of_6


@pytest.fixture
def old_and_new(ingest: Ingest) -> None:
    """Thirty events, the first twenty of them two days old."""
    ingest.take([event(of_6(record_number=str(n))) for n in range(30)])
    keys = list(Event.objects.order_by("pk").values_list("pk", flat=True)[:20])
    old = timezone.now() - timedelta(days=2)
    Event.objects.filter(pk__in=keys).update(received_at=old)


@pytest.mark.usefixtures("old_and_new")
def test_only_what_is_too_old_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 7)
    assert retention.forget_old()["events.Event"] == 20
    assert Event.objects.count() == 10


@pytest.mark.usefixtures("old_and_new")
def test_an_administrator_says_what_is_too_old() -> None:
    StreamSettings.objects.update(raw_hours=24 * 7)
    tasks.forget_old()
    assert Event.objects.count() == 30


@pytest.mark.usefixtures("old_and_new")
def test_a_round_ends_in_time_and_the_next_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 7)
    assert retention.forget_old(until=time.monotonic() - 1)["events.Event"] == 0
    assert retention.forget_old()["events.Event"] == 20


@pytest.mark.usefixtures("old_and_new")
def test_rows_of_a_clock_that_was_ahead_keep_nothing_behind_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retention, "BATCH", 7)
    first = Event.objects.order_by("pk").values_list("pk", flat=True)[:8]
    Event.objects.filter(pk__in=list(first)).update(received_at=timezone.now() + timedelta(days=1))
    assert retention.forget_old()["events.Event"] == 12
