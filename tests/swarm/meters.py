"""What a site on a swarm does while something is broken: measured from inside, every 0.2 s."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass

from nodes import Nodes

from harness import run, wait_for

MAILS = """
import json, time
from django.db import connection, transaction
from soc.core.severity import Severity
from soc.notify import outbox, tasks
from soc.notify.models import Subscription
from soc.notify.templates import Notice
to, _ = Subscription.objects.get_or_create(
    name="drill", defaults=dict(recipients="drill@health.internal", applications="logons",
                                storm_limit=30_000))
began, worst, number = time.monotonic(), {{"database": 0.0, "publishing": 0.0}}, 0

def timed(what, act):
    start = time.monotonic()
    while True:
        try:
            act()
            break
        except Exception as error:
            print(type(error).__name__, error, flush=True)
            connection.close()
            time.sleep(0.2)
    worst[what] = max(worst[what], time.monotonic() - start)

def write():
    notice = Notice(title=f"drill {case} {{number}}", severity=Severity.WARNING, summary="A test.",
                    facts={{}})
    with transaction.atomic():
        key = f"drill:{case}:{{number}}"
        outbox.enqueue(notice, key, topic=key, to=[to])

while time.monotonic() - began < {seconds}:
    timed("database", write)
    timed("publishing", tasks.wake)
    number += 1
    time.sleep(0.2)
print(json.dumps(worst | {{"mails": number}}))
"""
"""Writes a mail and notifies the workers; an error is tried again, as a task would be."""

BEAT = """
import json, time
from django.db import connection
from django_celery_beat.models import IntervalSchedule, PeriodicTask
every, _ = IntervalSchedule.objects.get_or_create(every=1, period="seconds")
PeriodicTask.objects.update_or_create(
    name="drill", defaults=dict(task="soc.core.tasks.ping_outside", interval=every))
began = time.monotonic()
last, at, worst = None, None, 0.0
while time.monotonic() - began < {seconds} or at is None:
    try:
        run_at = PeriodicTask.objects.values_list("last_run_at", flat=True).get(name="drill")
    except Exception:
        connection.close()
        run_at = last
    if run_at != last:
        now = time.monotonic()
        worst = max(worst, now - at) if at else 0.0
        last, at = run_at, now
    time.sleep(0.2)
print(json.dumps(dict(beat=max(worst, time.monotonic() - at))))
"""
"""A task of every second: the longest time in which none was dispatched. Two seconds are granted
at once, so a beat without any fault shows just that."""

DELIVERED = """
import json
from collections import Counter
from soc.notify.models import OutboundMail
mails = OutboundMail.objects.filter(subscription__name="drill", subject__contains="drill {case} ")
sent = [m for m in mails if m.sent_at]
waits = [(m.sent_at - m.created_at).total_seconds() for m in sent]
last = max((m.created_at for m in sent), default=None)
times = sorted(m.sent_at for m in sent if m.sent_at <= last)
gaps = [(after - before).total_seconds() for before, after in zip(times, times[1:])]
print(json.dumps(dict(states=Counter(m.state for m in mails), tasks=max(gaps, default=0.0),
                      slowest=max(waits, default=0.0))))
"""
"""The longest time in which no mail was sent while they were written, and the slowest mail: one
that a killed worker had claimed falls due again when its claim ends."""


@dataclass
class Meters:
    """The meters of one case, which run in tasks of a node that stays."""

    nodes: Nodes
    project: str
    case: str
    node: str
    victim: str
    seconds: int

    def __post_init__(self) -> None:
        self._mails = self._start("worker-shared", MAILS)
        self._beat = self._start("web", BEAT)

    def _container(self, service: str) -> str:
        tasks = self.nodes.tasks(f"{self.project}_{service}", besides=self.victim)
        return next(container for node, container in tasks if node == self.node)

    def _start(self, service: str, code: str) -> subprocess.Popen[str]:
        code = code.format(case=self.case, seconds=self.seconds)
        process = subprocess.Popen(
            self._python(service), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdin
        process.stdin.write(f"import django; django.setup()\n{code}")
        process.stdin.close()
        return process

    def _python(self, service: str) -> list[str]:
        return [
            "docker", "exec", "--interactive", self.node, "docker", "exec", "--interactive",
            "--env=DJANGO_SETTINGS_MODULE=soc.settings", self._container(service), "python3", "-",
        ]  # fmt: skip

    def results(self) -> dict[str, float]:
        """Wait until every mail has gone out; return the longest waits in seconds, and counts."""
        found: dict[str, float] = {}
        for process in (self._mails, self._beat):
            assert process.stdout
            printed = process.stdout.read().strip().splitlines()
            process.wait()
            found |= json.loads(printed[-1])
        code = f"import django; django.setup()\n{DELIVERED.format(case=self.case)}"

        def all_sent() -> dict[str, float]:
            answer = json.loads(run(*self._python("worker-shared"), stdin=code).splitlines()[-1])
            return answer if answer["states"] == {"sent": found["mails"]} else {}

        answer = wait_for("every mail", all_sent, 300)
        found |= {"tasks": answer["tasks"], "slowest": answer["slowest"]}
        return found | self._delivered()

    def _delivered(self) -> dict[str, float]:
        catcher = f"{self.project}_catcher"
        ((node, container),) = self.nodes.tasks(catcher, besides=self.victim)
        shown = self.nodes.run(
            node, "docker", "exec", container, "python3", "-m", "soc.notify.catcher", "show"
        )
        lines = [line for line in shown.splitlines() if line.startswith("Subject: ")]
        delivered = [line for line in lines if f"drill {self.case} " in line]
        return {"delivered": len(set(delivered)), "doubled": len(delivered) - len(set(delivered))}
