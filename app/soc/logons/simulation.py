"""What simulated robots log about their logons."""

import random
from collections.abc import Iterator

from soc.events.simulation import Doing, Scene
from soc.logons.messages import PHASES
from soc.logons.reader import CHANNEL, PROVIDER

PER_HOUR = 20
"""A logon every three minutes."""

RESOURCE = "Desktop"
FAILURES = (1006, 1007, 1016, 1017)
SECONDS = {
    "store": (1.5, 3.0),
    "client": (0.5, 1.2),
    "connection": (0.3, 0.9),
    "logon": (2.0, 4.0),
    "logoff": (4.0, 6.0),
}
"""The least and the most that a phase takes."""


def make(scene: Scene) -> Iterator[Doing]:
    """Yield the one event of a turn."""
    broker = f"XEN-{scene.cycle % 40 + 1:02}"
    event_id = FAILURES[scene.cycle % len(FAILURES)] if scene.failing else 1000
    text = _failure(broker) if scene.failing else _success(broker, scene.chance)
    level = "Warning" if scene.failing else "Information"
    yield Doing(scene.actor, PROVIDER, CHANNEL, event_id, text, {"param1": text}, level)


def _success(broker: str, chance: random.Random) -> str:
    phases = "\n".join(
        f"{label}: 00:00:{chance.uniform(*SECONDS[name]):010.7f}" for name, label in PHASES.items()
    )
    return (
        f"Successful logon: to resource: {RESOURCE} Brokered by device: {broker}\n\n"
        f"Test Details:\n----------------------\nLatest Test Result: True\n{phases}"
    )


def _failure(broker: str) -> str:
    return (
        f"Failed logon to resource: {RESOURCE}\n"
        "Failure reason: The session was not there in time.\n"
        f"Failure details: Nothing came for 60 s.\nDevice: {broker}\n"
        "Test Output:\n----------------------\n10:00:00 - Asking the store for the desktop"
    )
