"""What other applications make of events: each registers a reader when it starts.

Readers run on every event that is stored, in the transaction that stores it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from soc.events.models import Derived
from soc.events.shapes import WindowsEvent

DerivedRow = TypeVar("DerivedRow", bound=Derived)


class Arrival(NamedTuple):
    """An event as a reader gets it.

    ``at`` is when it happened, by the robot's clock, but never later than ``received_at``. A
    ``stale`` event may be stored and counted, but says nothing about the present.
    """

    event: WindowsEvent
    bot_id: int
    at: datetime
    received_at: datetime
    stale: bool

    def row(self, model: type[DerivedRow], **values: Any) -> DerivedRow:
        """Return a row of a model about this event."""
        return model(
            digest=self.event.digest,
            bot_id=self.bot_id,
            at=self.at,
            received_at=self.received_at,
            stale=self.stale,
            **values,
        )


@dataclass(frozen=True)
class EventReader:
    """What an application does with the events that are its own.

    ``read`` returns the rows to insert, none if the event is another's; it must not ask the
    database. A row whose ``digest`` is known already is left as it is. Whatever it raises is noted
    on the event, which is stored in any case. A row of a fresh event proves that the robot lives,
    under ``kind`` (``models.BotSeen``). Rows of ``model`` are deleted when they are too old.
    """

    kind: str
    model: type[Derived]
    read: Callable[[Arrival], Sequence[Derived]]


_readers: dict[str, EventReader] = {}


def register(kind: str, model: type[Derived], read: Callable[[Arrival], Sequence[Derived]]) -> None:
    """Have every event read; a kind that is registered again replaces the first."""
    _readers[kind] = EventReader(kind, model, read)


def registered() -> Sequence[EventReader]:
    """Return the readers of all applications."""
    return tuple(_readers.values())
