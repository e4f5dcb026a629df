"""A site's own shapes: where shippers that are not known put the parts of an event.

They are tried on what none of ``shapes.SHAPES`` could be read in, so that they cost nothing else.
"""

import time
from collections.abc import Iterable, Sequence

from soc.events import bodies, shapes
from soc.events.bodies import Malformed
from soc.events.models import FieldMapping
from soc.events.shapes import Part, Shape, UnknownShape, WindowsEvent

REMEMBERED = 10.0
"""Seconds for which mappings are remembered."""


class Mappings:
    """The enabled mappings, for one thread."""

    def __init__(self) -> None:
        self._until = 0.0
        self._shapes: Sequence[Shape] = ()

    def applied(self, parts: list[Part]) -> list[Part]:
        """Return parts, each that could not be read as the mappings read it.

        Raises:
            django.db.Error: the database is away.
        """
        if not any(isinstance(part.event, Malformed) for part in parts):
            return parts
        self._refresh()
        if not self._shapes:
            return parts
        return [
            Part(part.body, mapped(part, self._shapes))
            if isinstance(part.event, Malformed)
            else part
            for part in parts
        ]

    def _refresh(self) -> None:
        if time.monotonic() >= self._until:
            enabled = FieldMapping.objects.filter(enabled=True)
            self._shapes = [shape_of(mapping) for mapping in enabled]
            self._until = time.monotonic() + REMEMBERED


def mapped(part: Part, tried: Iterable[Shape]) -> WindowsEvent | Malformed:
    """Return what a part that could not be read is in other shapes, or why it is nothing."""
    try:
        (document,) = bodies.documents(part.body)
    except (Malformed, RecursionError, ValueError):
        return part.event
    event = shapes.read_document(document, tried)
    return part.event if isinstance(event, UnknownShape) else event


def shape_of(mapping: FieldMapping) -> Shape:
    """Return the shape that a mapping describes."""
    return Shape(
        name=mapping.name,
        marks=shapes.paths(mapping.mark),
        computer=shapes.paths(mapping.computer),
        provider=shapes.paths(mapping.provider),
        channel=shapes.paths(mapping.channel),
        record_id=shapes.paths(mapping.record_id),
        event_id=shapes.paths(mapping.event_id),
        level=shapes.paths(mapping.level),
        at=shapes.paths(mapping.at),
        message=shapes.paths(mapping.message),
        values=shapes.paths(mapping.values),
    )


def preview(mapping: FieldMapping, messages: Iterable[bytes]) -> str:
    """Return what messages would be with a mapping, a paragraph each."""
    shape = shape_of(mapping)
    return "\n\n".join(
        _described(mapped(part, [shape]))
        for message in messages
        for part in shapes.read_all(message)
    )


def _described(event: WindowsEvent | Malformed) -> str:
    if isinstance(event, Malformed):
        return f"Not read: {event}"
    shown = {
        "host": event.host,
        "provider": event.provider,
        "log": event.channel,
        "record number": event.record_id,
        "event id": event.event_id,
        "time": event.at.isoformat(),
        "level": event.level,
        "text": event.message[:200],
        "values": ", ".join(f"{name}={value[:80]}" for name, value in event.values.items())[:500],
    }
    return "\n".join(f"{name}: {value}" for name, value in shown.items())
