"""The order in which the servers of a round are asked to take one credential."""

import threading
import time
from collections.abc import Sequence
from enum import StrEnum

SECONDS = 25.0
"""How long the binds of one credential may take in one round, all together.

A round has to end before the task's soft time limit.
"""


class Turn(StrEnum):
    """Whether a server may be asked to take the credential."""

    GRANTED = "granted"
    REFUSED = "refused"
    """It was refused in this round, or must not be tried at this server at all."""
    LATE = "late"
    """The binds before it have taken too long: another round will ask."""


class Turns:
    """One bind at a time, in the given order, and none after the first refusal.

    Directories count refused binds, and servers that replicate each other may count together:
    binds that are under way at the same time could all be refused.
    """

    def __init__(self, keys: Sequence[int], seconds: float = SECONDS) -> None:
        self.order = list(keys)
        self._end = time.monotonic() + seconds
        self._changed = threading.Condition()
        self._refused = False

    def wait(self, key: int) -> Turn:
        """Wait until it is a server's turn; ``leave`` has to follow in any case."""
        with self._changed:
            if key not in self.order:
                return Turn.REFUSED
            left = self._end - time.monotonic()
            if not self._changed.wait_for(lambda: self._is_up(key), max(0, left)):
                return Turn.LATE
            return Turn.REFUSED if self._refused else Turn.GRANTED

    def _is_up(self, key: int) -> bool:
        return self._refused or self.order[0] == key

    def leave(self, key: int, bound: bool | None) -> None:
        """Let the next one take its turn; ``bound`` is the answer, None if there was none."""
        with self._changed:
            if key in self.order:
                self.order.remove(key)
            self._refused = self._refused or bound is False
            self._changed.notify_all()
