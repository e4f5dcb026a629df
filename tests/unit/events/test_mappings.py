"""A site's own shapes: read after ours, previewed before they are enabled."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from soc.events import dead, mappings, shapes
from soc.events.bodies import Malformed
from soc.events.models import DeadLetter, Event, EventSource, FieldMapping
from winlogbeat import CHANNEL, PROVIDER, body, of_6

PLACES = {
    "mark": "evt.no",
    "computer": "evt.machine",
    "provider": "evt.source",
    "channel": "evt.log",
    "record_id": "evt.no",
    "event_id": "evt.id",
    "at": "when",
    "message": "text",
}


def document(**changes: Any) -> dict[str, Any]:
    evt = {"machine": "ROBOT-07", "source": PROVIDER, "log": CHANNEL, "no": 9, "id": "12"}
    return {"evt": evt | changes, "when": "2026-03-04T05:06:07Z", "text": "Hello"}


def applied(*documents: dict[str, Any]) -> list[shapes.WindowsEvent | Malformed]:
    parts = [part for one in documents for part in shapes.read_all(body(one))]
    return [part.event for part in mappings.Mappings().applied(parts)]


@pytest.mark.django_db
def test_an_enabled_mapping_reads_what_no_shape_of_ours_has() -> None:
    FieldMapping.objects.create(name="ours", enabled=True, **PLACES)
    known, unknown = applied(of_6(), document())
    assert isinstance(known, shapes.WindowsEvent)
    assert isinstance(unknown, shapes.WindowsEvent)
    assert (unknown.host, unknown.record_id, unknown.event_id) == ("robot-07", 9, 12)
    assert (unknown.message, unknown.level, unknown.values) == ("Hello", "", {})


@pytest.mark.django_db
def test_a_mapping_says_why_it_cannot_read_what_has_its_mark() -> None:
    FieldMapping.objects.create(name="ours", enabled=True, **PLACES)
    wrong, other = applied(document(id="x"), {"n": 1})
    assert str(wrong).startswith("its event id is 'x'")
    assert "in a known shape" in str(other)


@pytest.mark.django_db
def test_a_disabled_mapping_reads_nothing() -> None:
    FieldMapping.objects.create(name="ours", **PLACES)
    assert isinstance(applied(document())[0], Malformed)


@pytest.mark.usefixtures("plain_static_files")
@pytest.mark.django_db
def test_a_dead_letter_is_previewed_and_then_replayed(admin_client: Client) -> None:
    EventSource.objects.create(provider=PROVIDER, channel=CHANNEL, allowed=True)
    dead.keep([dead.of(body(document()), "it has no shape")])
    mapping = FieldMapping.objects.create(name="ours", **PLACES)
    page = admin_client.get(
        reverse("admin:events_fieldmapping_change", args=[mapping.pk]), secure=True
    )
    assert "host: robot-07" in page.content.decode()
    letter = DeadLetter.objects.get()
    with pytest.raises(dead.CannotReplayEvent):
        dead.replay(letter, "ann")
    FieldMapping.objects.update(enabled=True)
    dead.replay(letter, "ann")
    assert Event.objects.get().record_id == 9
