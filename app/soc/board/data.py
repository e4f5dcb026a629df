"""The board: what each application's ``panels`` declares, read at one moment."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any

from django.contrib.auth.models import AnonymousUser, User

from soc.common import plugins
from soc.common.panels import Panel, Problem

COLUMNS = ("top", "wide", "narrow")


@dataclass(frozen=True)
class BoardPart:
    """A panel with what it has read."""

    panel: Panel
    data: Any


@dataclass(frozen=True)
class Board:
    """Everything the board shows; the parts in their order."""

    now: datetime
    parts: Sequence[BoardPart]
    problems: Sequence[Problem]
    """The bad before the rest."""

    @property
    def tone(self) -> str:
        """The worst tone of the problems."""
        tones = {problem.tone for problem in self.problems}
        return "bad" if "bad" in tones else "warn" if tones else "ok"

    def shown_to(self, user: User | AnonymousUser) -> dict[str, list[BoardPart]]:
        """Return the parts by their columns that a user may see."""
        seen = [
            part
            for part in self.parts
            if part.panel.template
            and (not part.panel.permission or user.has_perm(part.panel.permission))
        ]
        return {
            column: [part for part in seen if part.panel.column == column] for column in COLUMNS
        }


def panels() -> list[Panel]:
    """Return the panels of every application, column by column."""
    declared: Iterable[Panel] = (p for m in plugins.modules("panels") for p in m.PANELS)
    in_columns = sorted(declared, key=attrgetter("position"))
    return sorted(in_columns, key=lambda panel: COLUMNS.index(panel.column))


def read(now: datetime) -> Board:
    """Read the whole board."""
    parts = [BoardPart(panel, panel.read(now)) for panel in panels()]
    problems = [problem for part in parts for problem in part.panel.problems(part.data, now)]
    return Board(now, parts, sorted(problems, key=lambda problem: problem.tone != "bad"))
