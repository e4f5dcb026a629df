"""What every channel does: check a destination, and deliver one row of the outbox to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from soc.notify.models import OutboundMail


class Reply(Protocol):
    """What the other side said of one recipient; it prints as words for people."""

    @property
    def code(self) -> int:
        """Its protocol's status code, or 0 for our own word."""

    @property
    def taken(self) -> bool:
        """Whether the message is now theirs."""

    @property
    def final(self) -> bool:
        """Whether another try would be in vain."""


class Unavailable(Exception):
    """A destination cannot take anything now: it is held, and no other.

    ``wait`` is how long it asks for. ``uncertain``: it may have taken this message all the same.
    """

    def __init__(
        self, words: str, *, wait: timedelta | None = None, uncertain: bool = False, code: int = 0
    ) -> None:
        super().__init__(words)
        self.wait, self.uncertain, self.code = wait, uncertain, code


class Channel(ABC):
    """One way to notify a subscription. A channel keeps no state: the outbox and its rows do."""

    digests = True
    """Whether one message may stand for many; not where each alert is opened and closed."""

    @abstractmethod
    def validate(self, url: str, secret: str) -> dict[str, str]:
        """Return what is wrong with a destination, by the form's fields ``url`` and ``secret``."""

    @abstractmethod
    def deliver(self, mail: OutboundMail) -> Mapping[str, Reply]:
        """Deliver a row to its outstanding recipients; return what was said for each.

        Raises:
            Unavailable: the destination is down, or asks us to wait.
        """
