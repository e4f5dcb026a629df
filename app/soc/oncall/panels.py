"""The rotas' part of the board."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from soc.common.panels import Panel, Problem
from soc.oncall.pages import RotaView, views


def problems(shown: Sequence[RotaView], _: datetime) -> Iterator[Problem]:
    """Complain of rotas that have a gap now."""
    for view in shown:
        if view.current.is_gap:
            yield Problem("bad", f"Nobody is on call at {view.rota}: {view.current.why}.", "oncall")


PANELS = (
    Panel(
        *("oncall", views, problems, "oncall/panel.html", "oncall.view_rota"),
        column="narrow",
        position=10,
    ),
)
