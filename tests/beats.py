"""Beats in a running site, and what they dispatch as a consumer at the broker sees it."""

from __future__ import annotations

import json
import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from harness import Stack, run, wait_for
from soc.provision import pki
from soc.runtime.queues import QUORUM, TASK_EXCHANGE

PROBE = "beat-probe"
ANY_KEY_OF_BEAT = {
    "user": "beat",
    "vhost": "/",
    "exchange": TASK_EXCHANGE,
    "write": ".*",
    "read": ".*",
}
"""A topic permission: beat's own allows the keys of the product's queues only."""

THE_SITES_DEFINITIONS = ("import_definitions", "/run/site/definitions.json")
"""The queue, its routing key, its consumer's user, and how the schedules' names start."""

TASK = "soc.ssl_certs.tasks.scan_endpoint"
"""A registered task with an argument, published as the product publishes; no worker gets it."""

LATELY = 2.0
"""Seconds whose messages tell which beat is active."""

SECOND = 1_000_000


@dataclass(frozen=True)
class Message:
    """One message as it arrived; ``due`` is in microseconds of Unix time."""

    at: float
    name: str
    key: str
    sender: str
    due: int

    @property
    def number(self) -> int:
        """The schedule's number, which its name ends with."""
        return int(self.name.split()[-1])

    @property
    def host(self) -> str:
        """The host name of the container that sent it (Celery's origin is pid@host)."""
        return self.sender.rpartition("@")[2]


@dataclass(frozen=True)
class Plan:
    """Schedules with one period, each due from its own time on.

    ``first_due`` is a Unix time and ``period`` a time, in whole seconds.
    """

    first_due: int
    period: int
    count: int

    def due(self, number: int, turn: int) -> float:
        """Return when a schedule's run is due, the first one is turn 0."""
        return (self._first(number) + turn * self.period * SECOND) / SECOND

    def turns(self, number: int, start: float, end: float) -> range:
        """Return a schedule's runs that were due in a span of time."""
        first, period = self._first(number) / SECOND, self.period
        return range(math.ceil((start - first) / period), math.ceil((end - first) / period))

    def runs(self, messages: list[Message]) -> Iterator[tuple[Message, tuple[int, int] | None]]:
        """Yield messages with their runs, the schedule's number and its turn.

        None is a run at a time at which its schedule was not due.
        """
        for message in messages:
            if message.number < self.count:
                passed = message.due - self._first(message.number)
                turn, beside = divmod(passed, self.period * SECOND)
                yield message, None if beside else (message.number, turn)

    def _first(self, number: int) -> int:
        return self.first_due * SECOND + number * self.period * SECOND // self.count


class Beats:
    """The beats of a site and a consumer beside them, whose queue only its schedules fill."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.stack = stack
        self.folder = folder
        self._consumer = f"{stack.project}-beat-consumer"
        self._messages: list[Message] = []
        self._read = 0

    @contextmanager
    def running(self) -> Iterator[Beats]:
        """Two beats and the consumer; put everything back at the end."""
        self._open()
        try:
            yield self
        finally:
            self._close()

    def _open(self) -> None:
        queue = {"name": PROBE, "vhost": "/", "durable": True, "auto_delete": False}
        binding = {
            "source": TASK_EXCHANGE,
            "vhost": "/",
            "destination": PROBE,
            "destination_type": "queue",
            "routing_key": PROBE,
            "arguments": {},
        }
        permission = {"user": PROBE, "vhost": "/", "configure": "^$", "write": "^$"}
        definitions = {
            "users": [{"name": PROBE, "password_hash": "", "tags": []}],
            "permissions": [permission | {"read": f"^{PROBE}$"}],
            "topic_permissions": [ANY_KEY_OF_BEAT],
            "queues": [queue | {"arguments": QUORUM}],
            "bindings": [binding],
        }
        self._define(definitions)
        self._issue_identity()
        records = self.folder / "records"
        records.mkdir(exist_ok=True)
        records.chmod(0o777)
        image = self.stack.inspect("beat")["Config"]["Image"]
        run("docker", "rm", "--force", self._consumer, check=False)
        run(
            "docker", "run", "--detach", "--name", self._consumer,
            f"--network={self.stack.project}_data",
            f"--volume={Path(__file__).with_name('beat_consumer.py')}:/beat_consumer.py:ro",
            f"--volume={self.folder / 'identity'}:/run/site:ro",
            f"--volume={records}:/records",
            image, "python3", "/beat_consumer.py", PROBE, "/records/messages",
        )  # fmt: skip
        wait_for("the consumer", lambda: "consuming" in run("docker", "logs", self._consumer))
        self.scale(2)

    def let_beat_use_any_key(self) -> None:
        """Widen beat's rights again: the broker reads the site's definitions when it starts."""
        self._define({"topic_permissions": [ANY_KEY_OF_BEAT]})

    def _define(self, definitions: dict[str, Any]) -> None:
        self.stack.exec(
            "rabbitmq", "sh", "-c",
            "cat >/tmp/probe.json && rabbitmqctl -q import_definitions /tmp/probe.json",
            stdin=json.dumps(definitions),
        )  # fmt: skip

    def _issue_identity(self) -> None:
        site = self.stack.folder / "env" / self.stack.site
        authority = pki.KeyPair.load(site / "ca" / "ca.pem", site / "ca" / "ca.key")
        identity = pki.issue(authority, PROBE, ["localhost"])
        folder = self.folder / "identity"
        folder.mkdir(exist_ok=True)
        for name, content in (
            ("ca.pem", authority.certificate_pem),
            ("cert.pem", identity.certificate_pem),
            ("key.pem", identity.key_pem),
        ):
            (folder / name).write_bytes(content)
            # Containers run as another user; the folder above is this one's own.
            (folder / name).chmod(0o644)

    def _close(self) -> None:
        self.forget_schedules()
        run("docker", "rm", "--force", self._consumer, check=False)
        self.scale(1)
        for command in (("delete_queue", PROBE), ("delete_user", PROBE), THE_SITES_DEFINITIONS):
            self.stack.exec("rabbitmq", "rabbitmqctl", "-q", *command, check=False)

    def scale(self, count: int) -> None:
        self.stack.compose(
            "up", "--detach", "--no-deps", "--no-recreate", "--scale", f"beat={count}", "beat"
        )
        for index in range(1, count + 1):
            wait_for("a beat to tick", lambda i=index: self.ticks(self.stack.container("beat", i)))

    def ticks(self, container: str) -> bool:
        """Whether a beat has ticked lately, by its own health check."""
        check = ("docker", "exec", container, "sh", "-c", "alive 5 >&2 && echo TICKS")
        return "TICKS" in run(*check, check=False)

    def schedule(self, count: int, period: int, lead: int = 5) -> Plan:
        """Replace the schedules: ``count``, each every ``period`` seconds, evenly spread."""
        first_due = self.stack.data(f"""
import time
from datetime import UTC, datetime, timedelta
from django_celery_beat.models import IntervalSchedule, PeriodicTask, PeriodicTasks
PeriodicTask.objects.filter(name__startswith="{PROBE} ").delete()
every, _ = IntervalSchedule.objects.get_or_create(every={period}, period="seconds")
first_due = int(time.time()) + {lead}
before = datetime.fromtimestamp(first_due - {period}, UTC)
PeriodicTask.objects.bulk_create([
    PeriodicTask(
        name=f"{PROBE} {{number}}", task="{TASK}", exchange="{TASK_EXCHANGE}",
        routing_key="{PROBE}", args=f"[{{number}}]", interval=every,
        expire_seconds=600,
        last_run_at=before + timedelta(microseconds=number * {period} * 10**6 // {count}),
    )
    for number in range({count})
])
PeriodicTasks.update_changed()
answer = first_due
""")
        return Plan(first_due, period, count)

    def forget_schedules(self) -> None:
        self.stack.data(f"""
from django_celery_beat.models import PeriodicTask, PeriodicTasks
answer = PeriodicTask.objects.filter(name__startswith="{PROBE} ").delete()[0]
PeriodicTasks.update_changed()
""")

    def messages(self) -> list[Message]:
        """Return all messages so far, in the order in which they arrived."""
        path = self.folder / "records" / "messages"
        if path.exists():
            with path.open() as file:
                file.seek(self._read)
                new = file.read()
            new = new[: new.rfind("\n") + 1]
            self._read += len(new.encode())
            self._messages += [_parse(line) for line in new.splitlines()]
        return self._messages

    def since(self, moment: float) -> list[Message]:
        """Return the messages that arrived after a moment."""
        return [message for message in self.messages() if message.at > moment]

    def containers(self) -> dict[str, str]:
        """Return the beats' containers by their host names."""
        listed = run(
            "docker", "ps", "--all", "--format={{.Names}}",
            f"--filter=label=com.docker.compose.project={self.stack.project}",
            "--filter=label=com.docker.compose.service=beat",
        )  # fmt: skip
        return {
            run("docker", "inspect", "--format={{.Config.Hostname}}", name).strip(): name
            for name in listed.split()
        }

    def active(self) -> str:
        """Return the host name of the beat that sent most of the latest messages.

        One that was paused may still send what it had been granted before.
        """
        latest = wait_for("messages", lambda: self.since(time.time() - LATELY))
        return Counter(message.host for message in latest).most_common(1)[0][0]

    def taken_over(self, moment: float, former: str, seconds: float = 60) -> Message:
        """Wait until another beat dispatches; return its first message."""

        def first() -> Message | None:
            return next((m for m in self.since(moment) if m.host != former), None)

        found = wait_for(f"another beat than {former}", first, seconds)
        assert found
        return found


def _parse(line: str) -> Message:
    at, name, key, sender, due = line.split("\t")
    return Message(float(at), name, key, sender, _microseconds(datetime.fromisoformat(due)))


def _microseconds(at: datetime) -> int:
    return (at - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)


def dispatched(plan: Plan, messages: list[Message]) -> dict[tuple[int, int], list[Message]]:
    """Return the messages of each run, a schedule's number and its turn.

    Raises:
        AssertionError: a message belongs to no run of the plan.
    """
    found = defaultdict(list)
    for message, run_of_it in plan.runs(messages):
        assert run_of_it, f"{message} is of no due time"
        found[run_of_it].append(message)
    return found


def doubled(plan: Plan, messages: list[Message]) -> dict[tuple[int, int], list[Message]]:
    """Return the runs that were dispatched more than once, with their messages."""
    return {of: sent for of, sent in dispatched(plan, messages).items() if len(sent) > 1}
