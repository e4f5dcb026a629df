"""Robots that are not there: the demo, the drill and the load test of the event stream.

Applications register what their robots do; this turns it into the documents that Winlogbeat ships,
in both generations, with the faults that are asked for.
"""

import heapq
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import Any

STALE = timedelta(hours=2)
"""How old the events of the fault ``stale`` are."""

GENERATIONS = (6, 8)
"""Of Winlogbeat; robots take turns."""


@dataclass(frozen=True)
class SimulatedRobot:
    """A robot that is simulated."""

    number: int
    host: str
    site: str
    domain: str

    @property
    def generation(self) -> int:
        """Which Winlogbeat it runs."""
        return GENERATIONS[self.number % len(GENERATIONS)]


@dataclass(frozen=True)
class Scene:
    """A robot's turn; a ``failing`` one goes wrong. What happens by chance is drawn from it."""

    robots: Sequence[SimulatedRobot]
    actor: SimulatedRobot
    cycle: int
    failing: bool
    chance: random.Random


@dataclass(frozen=True)
class Doing:
    """One event that a robot's host logs, this many seconds after the turn began."""

    robot: SimulatedRobot
    provider: str
    channel: str
    event_id: int
    message: str
    values: Mapping[str, str] = field(default_factory=dict)
    level: str = "Information"
    after: float = 0.0


@dataclass(frozen=True)
class Activity:
    """What the robots of an application do, and how many events an hour each of them logs."""

    kind: str
    per_hour: float
    make: Callable[[Scene], Iterable[Doing]]


_activities: dict[str, Activity] = {}


def register(kind: str, per_hour: float, make: Callable[[Scene], Iterable[Doing]]) -> None:
    """Have simulated robots do something; a kind that is registered again replaces the first."""
    _activities[kind] = Activity(kind, per_hour, make)


def activities() -> Sequence[Activity]:
    """Return what robots do."""
    return tuple(_activities.values())


def say_something(scene: Scene) -> Iterator[Doing]:
    """Yield the plainest event: a robot is there."""
    text = f"Turn {scene.cycle} of {scene.actor.host}"
    yield Doing(
        scene.actor, "SOC Robot", "Application", 1, text, {"param1": text + ". " + "x" * 500}
    )


def robots(number: int, sites: int) -> list[SimulatedRobot]:
    """Return robots that are spread over sites."""
    return [
        SimulatedRobot(
            number=n,
            host=f"robot-{n:02}",
            site=f"site-{(n - 1) % sites + 1}",
            domain=f"site-{(n - 1) % sites + 1}.soc.internal",
        )
        for n in range(1, number + 1)
    ]


@dataclass(frozen=True)
class Faults:
    """What goes wrong: how many robots, the first ones, are silent, and shares of all events."""

    silent: int = 0
    fail: float = 0.0
    duplicate: float = 0.0
    malformed: float = 0.0
    stale: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Faults":
        """Read faults as they are given on the command line: ``silent=2,fail=0.1``.

        Raises:
            ValueError: a fault is unknown, or its number is none or out of range.
        """
        values: dict[str, Any] = {}
        for part in filter(None, text.split(",")):
            name, _, number = part.partition("=")
            if name not in cls.__dataclass_fields__:
                known = ", ".join(cls.__dataclass_fields__)
                raise ValueError(f"{name!r} is no fault; there are {known}")
            value = float(number) if number else 1.0
            if value < 0 or (name != "silent" and value > 1):
                raise ValueError(
                    f"{part!r} is out of range: silent counts robots, the others are shares"
                )
            values[name] = int(value) if name == "silent" else value
        return cls(**values)


@dataclass(frozen=True)
class SimulatedMessage:
    """A body to publish, and its kind: good, stale, malformed, or the duplicate of another."""

    kind: str
    body: bytes


@dataclass(frozen=True, order=True)
class _Turn:
    """What is to happen when; of the same moment, what was put there first."""

    at: float
    order: int
    thing: Doing | tuple[SimulatedRobot, Activity] = field(compare=False)


class Play:
    """What robots log, in the order of time; ``counts`` says what has been made so far.

    At a ``pace`` of 1 they log as many events an hour as their activities say.
    """

    def __init__(
        self,
        cast: Sequence[SimulatedRobot],
        what: Sequence[Activity],
        faults: Faults,
        pace: float,
        seed: int,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._cast = cast
        self._faults = faults
        self._pace = pace
        # No secret is made of it: the same seed is to give the same play.
        self._random = random.Random(seed)  # noqa: S311
        self._numbers = count(self._random.randrange(10**6) * 10**6)
        self._order = count()
        self._cycles: Counter[tuple[SimulatedRobot, str]] = Counter()
        self._due: list[_Turn] = []
        for activity in what:
            for robot in cast:
                self._push(self._random.uniform(0, 60 / pace), (robot, activity))

    def due(self) -> float:
        """Return when the next thing happens, in seconds from the start of the play."""
        return self._due[0].at

    def next(self, now: datetime) -> list[SimulatedMessage]:
        """Return the messages of what is due first; a turn may have none."""
        turn = heapq.heappop(self._due)
        at, thing = turn.at, turn.thing
        if isinstance(thing, Doing):
            return self._told(thing, now)
        robot, activity = thing
        cycle = self._cycles[robot, activity.kind]
        self._cycles[robot, activity.kind] += 1
        failing = self._random.random() < self._faults.fail
        doings = list(activity.make(Scene(self._cast, robot, cycle, failing, self._random)))
        self._push(at + max(1, len(doings)) * 3600 / activity.per_hour / self._pace, thing)
        told = []
        for doing in doings:
            if doing.after:
                self._push(at + doing.after, doing)
            else:
                told += self._told(doing, now)
        return told

    def _push(self, at: float, thing: Doing | tuple[SimulatedRobot, Activity]) -> None:
        heapq.heappush(self._due, _Turn(at, next(self._order), thing))

    def _told(self, doing: Doing, now: datetime) -> list[SimulatedMessage]:
        if doing.robot.number <= self._faults.silent:
            return []
        number, chance = next(self._numbers), self._random.random
        if chance() < self._faults.malformed:
            self.counts["malformed"] += 1
            return [SimulatedMessage("malformed", _spoiled(document(doing, now, number), number))]
        kind = "stale" if chance() < self._faults.stale else "good"
        body = encoded(document(doing, now - STALE if kind == "stale" else now, number), number)
        self.counts[kind] += 1
        messages = [SimulatedMessage(kind, body)]
        if chance() < self._faults.duplicate:
            self.counts["duplicate"] += 1
            messages.append(SimulatedMessage("duplicate", body))
        return messages


# --- Documents ----------------------------------------------------------------------------------


def document(doing: Doing, at: datetime, number: int) -> dict[str, object]:
    """Return an event as the robot's Winlogbeat writes it."""
    if doing.robot.generation == 6:
        return _of_6(doing, at, number)
    return _of_8(doing, at, number)


def _address(robot: SimulatedRobot) -> str:
    # TEST-NET-1 (RFC 5737).
    return f"192.0.2.{robot.number % 254 + 1}"


def _of_6(doing: Doing, at: datetime, number: int) -> dict[str, object]:
    """Winlogbeat 6.8 behind Logstash, by its documentation of exported fields."""
    host = doing.robot.host.upper()
    return {
        "@timestamp": f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z",
        "@version": "1",
        "beat": {"hostname": host, "name": host, "version": "6.8.23"},
        "computer_name": f"{host}.{doing.robot.domain}",
        "event_data": dict(doing.values),
        "event_id": doing.event_id,
        "host": {"name": host, "ip": [_address(doing.robot)]},
        "keywords": ["Classic"],
        "level": doing.level,
        "log_name": doing.channel,
        "message": doing.message,
        "record_number": str(number),
        "source_name": doing.provider,
        "tags": ["beats_input_codec_plain_applied"],
        "type": "wineventlog",
    }


def _of_8(doing: Doing, at: datetime, number: int) -> dict[str, object]:
    """Winlogbeat 8 behind Logstash, by the Elastic Common Schema 8 and its winlog fields.

    It names the host as Windows names it in the event, which in a domain is fully.
    """
    short = doing.robot.host.lower()
    host = f"{short}.{doing.robot.domain}"
    created = f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z"
    return {
        "@timestamp": created,
        "@version": "1",
        "agent": {"name": short, "type": "winlogbeat", "version": "8.17.0"},
        "ecs": {"version": "8.0.0"},
        "event": {
            "code": str(doing.event_id),
            "created": created,
            "kind": "event",
            "provider": doing.provider,
        },
        "host": {
            "name": host,
            "ip": ["fe80::1", _address(doing.robot)],
            "os": {"family": "windows"},
        },
        "log": {"level": doing.level.lower()},
        "message": doing.message,
        "winlog": {
            "api": "wineventlog",
            "channel": doing.channel,
            "computer_name": host,
            "event_data": dict(doing.values),
            "event_id": str(doing.event_id),
            "provider_name": doing.provider,
            "record_id": number,
        },
    }


def encoded(content: Mapping[str, object], number: int) -> bytes:
    """Return a document as a body; one of ten is a JSON string that holds it."""
    text = json.dumps(content)
    return json.dumps(text).encode() if number % 10 == 0 else text.encode()


def _spoiled(content: dict[str, object], number: int) -> bytes:
    """Return a body that is no event, in one of the ways that happen; each differs from others."""
    text = json.dumps(content)
    match number % 6:
        case 0:
            return text[: len(text) // 2].encode()
        case 1:
            return json.dumps([number]).encode()
        case 2:
            return text.encode().replace(b'"message"', b'"\xff\xfe"')
        case 3:
            return json.dumps(content | {"@timestamp": f"some day, {number}"}).encode()
        case 4:
            kept = {name: content[name] for name in ("@timestamp", "message", "@version")}
            return json.dumps(kept | {"number": number}).encode()
    return json.dumps(content | {"host": {"ip": []}, "winlog": {}, "number": number}).encode()
