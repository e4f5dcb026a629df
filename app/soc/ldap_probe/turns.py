"""The order in which the servers of a round are asked to take one credential."""

import threading
import time
from collections.abc import Collection, Sequence
from enum import StrEnum

SECONDS = 25.0
"""How long the binds of one credential may take in one round, all together.

A round has to end before the task's soft time limit.
"""

PATIENCE = 5.0
"""How long the first in the order is waited for, which may hang before it comes to the bind."""


class Turn(StrEnum):
    """Whether a server may be asked to take the credential."""

    GRANTED = "granted"
    REFUSED = "refused"
    """It was refused in this round, or must not be tried at this server at all."""
    LATE = "late"
    """The binds before it have taken too long: another round will ask."""


class Turns:
    """One bind at a time, and none after the first refusal.

    Directories count refused binds, and servers that replicate each other may count together:
    binds that are under way at the same time could all be refused. The first in the given order
    goes first, because its answer says most. When the credential was taken, or the first has not
    come within ``patience`` seconds, the others go on as they wait, the first first. Those of
    ``last``, which have refused it before, are asked when all others have left: a refusal there
    must not keep the others from being asked.
    """

    def __init__(
        self,
        keys: Sequence[int],
        last: Collection[int] = (),
        *,
        seconds: float = SECONDS,
        patience: float = PATIENCE,
    ) -> None:
        self.order = list(keys)
        self._last = frozenset(last)
        began = time.monotonic()
        self._end, self._patient_until = began + seconds, began + patience
        self._changed = threading.Condition()
        self._waiting: set[int] = set()
        self._binding: int | None = None
        self._taken = self._refused = False

    def wait(self, key: int) -> Turn:
        """Wait until it is a server's turn; ``leave`` has to follow in any case."""
        with self._changed:
            if key not in self.order:
                return Turn.REFUSED
            self._waiting.add(key)
            try:
                while not self._refused and self._next() != key:
                    now = time.monotonic()
                    if now >= self._end:
                        return Turn.LATE
                    until = self._patient_until if now < self._patient_until else self._end
                    self._changed.wait(min(until, self._end) - now)
            finally:
                self._waiting.discard(key)
            if self._refused:
                return Turn.REFUSED
            self._binding = key
            return Turn.GRANTED

    def _next(self) -> int | None:
        if self._binding is not None:
            return None
        anybody = self._taken or time.monotonic() >= self._patient_until
        asked = [key for key in self.order if key not in self._last] if anybody else []
        return next((key for key in asked or self.order[:1] if key in self._waiting), None)

    def leave(self, key: int, bound: bool | None) -> None:
        """Let the next one take its turn; ``bound`` is the answer, None if there was none."""
        with self._changed:
            if key in self.order:
                self.order.remove(key)
            if self._binding == key:
                self._binding = None
            self._taken = self._taken or bound is True
            self._refused = self._refused or bound is False
            self._changed.notify_all()
