"""What simulated robots log about their mail."""

import json
from collections.abc import Iterator

from soc.events.simulation import Doing, Scene, SimulatedRobot
from soc.mail_collector.reader import CHANNEL, PROVIDER

PER_HOUR = 274
"""A round of five events every 65 seconds or so."""

SERVERS, DATABASES = 2, 3


def make(scene: Scene) -> Iterator[Doing]:
    """Yield a robot's round, and the receipt of its mail by another one.

    Now and then a receipt is logged before its sending is: clocks differ, and so do queues.
    """
    actor = scene.actor
    others = [robot for robot in scene.robots if robot != actor] or [actor]
    # Each robot writes to all others in turn.
    to = others[scene.cycle % len(others)]
    mail = {
        "wm_id": f"{actor.number:03}-{scene.cycle:08}",
        "message_id": f"<{scene.chance.getrandbits(64):016x}@{actor.domain}>",
    }
    for number, kind in enumerate(("configuration", "connection", "create")):
        yield _doing(actor, kind, number / 10, passed=True)
    ends = {"from": mailbox(actor), "to": [mailbox(to)]}
    text = "The server did not take it." if scene.failing else ""
    yield _doing(actor, "send", 0.3, passed=not scene.failing, text=text, **mail, **ends)
    if not scene.failing:
        after = scene.chance.choice((0.2, 1.0, 2.0))
        yield _doing(to, "receive", after, passed=True, **mail, **ends)


def mailbox(robot: SimulatedRobot) -> str:
    """Return the address of a robot's mailbox."""
    server, database = robot.number % SERVERS + 1, robot.number % DATABASES + 1
    return f"mail{server}-db{database}-robot{robot.number:02}@{robot.domain}"


def _doing(
    robot: SimulatedRobot, kind: str, after: float, *, passed: bool, **more: object
) -> Doing:
    status = "PASS" if passed else "FAIL"
    check = {"type": kind, "status": status, "mailbox": mailbox(robot), **more}
    text = json.dumps(check)
    level = "Information" if passed else "Error"
    return Doing(robot, PROVIDER, CHANNEL, 1, text, {"param1": text}, level, after)
