"""What an application adds to the board, in its module ``panels``: ``PANELS``, a sequence."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Problem:
    """One sentence of the board's headline; `panel` is the name of the panel that has more."""

    tone: str
    """``bad`` or ``warn``."""
    text: str
    panel: str


def _none(_: Any, __: datetime) -> Iterable[Problem]:
    return ()


@dataclass(frozen=True)
class Panel:
    """A part of the board: what it reads, what it complains of, and how it is shown.

    `read` takes the moment of the refresh and reads in a fixed number of queries; its result is
    ``panel`` in the template, and the argument of `problems` together with the moment.
    """

    name: str
    read: Callable[[datetime], Any]
    problems: Callable[[Any, datetime], Iterable[Problem]] = _none
    template: str = ""
    """Without one it has only a say in the headline."""
    permission: str = ""
    """Who lacks it does not see the panel: that of the page that shows the same."""
    column: str = "wide"
    """``top``, ``wide`` or ``narrow``."""
    position: int = 50
    """Less is higher up in its column, and earlier in the headline."""
