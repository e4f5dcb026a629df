"""No-op tasks with stock Celery settings and with ours, on one broker, in one run.

make bench BENCH=tasks
"""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

TESTS = Path(__file__).resolve().parents[1]
sys.path.extend([str(TESTS), str(TESTS.parent / "app")])

from harness import REPOSITORY, Stack, copy_tree, has_engine, run, wait_for  # noqa: E402
from soc.core import pki  # noqa: E402

COUNT = int(os.environ.get("BENCH_TASKS", "5000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "2"))
CHILD_KILLS = 12
WORK = 0.004
"""Seconds that a task sleeps where workers are killed, so that a kill hits a running task."""

VARIANTS = ("stock", "ours")
FOLDER = REPOSITORY / "var" / "bench-tasks"
SERVICE = "worker-ssl-certs"
KILL_A_CHILD = "kill -9 $(cut -d ' ' -f 1 /proc/1/task/1/children)"


@dataclass
class Measured:
    """What one variant did, a value per round."""

    published: list[float] = field(default_factory=list)
    consumed: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    lost: int = 0
    twice: int = 0


def say(text: str) -> None:
    print(f"== {text}", flush=True)


@dataclass
class Bench:
    """A site with nothing but a broker and a database, and this benchmark's containers."""

    stack: Stack

    @property
    def worker(self) -> str:
        return f"{self.stack.project}-worker"

    @property
    def records(self) -> Path:
        return FOLDER / "records"

    def start(self) -> None:
        say("creating a site with a broker and a database")
        self.stack.create()
        self.stack.compose("up", "--detach", "--wait", "mariadb", "rabbitmq")
        self.stack.compose("run", "--rm", "migrate")
        self._add_user()

    def _add_user(self) -> None:
        """Stock settings declare queues and use the default exchange: no service of ours may."""
        site = self.stack.folder / "env" / self.stack.site
        authority = pki.Identity.load(site / "ca" / "ca.pem", site / "ca" / "ca.key")
        identity = pki.issue(authority, "bench", ["localhost"])
        folder = FOLDER / "identity"
        folder.mkdir()
        (folder / "ca.pem").write_bytes(authority.certificate_pem)
        (folder / "cert.pem").write_bytes(identity.certificate_pem)
        (folder / "key.pem").write_bytes(identity.key_pem)
        self._ctl("add_user", "bench", "only-certificates-count")
        self._ctl("clear_password", "bench")
        self._ctl("set_permissions", "bench", ".*", ".*", ".*")

    def _ctl(self, *command: str) -> None:
        self.stack.exec("rabbitmq", "rabbitmqctl", "-q", *command)

    def inside(self, options: tuple[str, ...], *command: str) -> str:
        """Run a command in a container like the worker's: same limits, same files, same network."""
        return self.stack.compose(
            "run", *options, "--no-deps",
            f"--volume={TESTS / 'bench'}:/bench:ro",
            f"--volume={FOLDER / 'identity'}:/identity:ro",
            f"--volume={self.records}:/records",
            "--env=PYTHONPATH=/app", SERVICE, "python3", "/bench/tasks_inside.py", *command,
        )  # fmt: skip

    def publish(self, variant: str, seconds: float = 0.0) -> float:
        """Publish the tasks to an empty queue; return how many a second."""
        shutil.rmtree(self.records, ignore_errors=True)
        self.records.mkdir()
        # The containers' user is another one.
        self.records.chmod(0o777)
        printed = self.inside(("--rm",), "publish", variant, str(COUNT), str(seconds))
        return COUNT / float(printed.split()[-1])

    @contextmanager
    def working(self, variant: str) -> Iterator[None]:
        self.inside(("--detach", "--name", self.worker), "work", variant)
        try:
            yield
            run("docker", "stop", "--time", "30", self.worker)
        finally:
            run("docker", "rm", "--force", self.worker, check=False)

    def recorded(self) -> int:
        return sum(path.stat().st_size for path in self.records.glob("*.record")) // 4

    def numbers(self) -> Counter[int]:
        """How often each task ran."""
        content = b"".join(path.read_bytes() for path in self.records.glob("*.record"))
        return Counter(int.from_bytes(content[at : at + 4]) for at in range(0, len(content), 4))

    def left(self) -> int:
        queues = self.stack.queues()
        return sum(queues[name]["messages"] for name in ("celery", "ssl_certs") if name in queues)


def measure_speed(bench: Bench, variant: str, measured: Measured) -> None:
    measured.published.append(bench.publish(variant))
    with bench.working(variant):
        wait_for("every task", lambda: bench.recorded() >= COUNT, seconds=120)
    ready = bench.records / "worker_ready.cpu"
    end = bench.records / "worker_shutting_down.cpu"
    last = max(path.stat().st_mtime for path in bench.records.glob("*.record"))
    measured.consumed.append(COUNT / (last - ready.stat().st_mtime))
    measured.cpu.append((float(end.read_text()) - float(ready.read_text())) * 1000 / COUNT)
    say(
        f"{variant}: published {measured.published[-1]:.0f}/s, consumed "
        f"{measured.consumed[-1]:.0f}/s, {measured.cpu[-1]:.2f} ms of CPU a task"
    )


def measure_safety(bench: Bench, variant: str, measured: Measured) -> None:
    bench.publish(variant, WORK)
    with bench.working(variant):
        for kill in range(1, CHILD_KILLS + 1):
            # Spread over the run: the last ones come when most tasks are done.
            reached = COUNT * kill // (CHILD_KILLS + 2)
            wait_for("progress", lambda n=reached: bench.recorded() >= n, seconds=60)
            if kill == CHILD_KILLS // 2:
                run("docker", "kill", bench.worker)
                run("docker", "start", bench.worker)
            else:
                run("docker", "exec", bench.worker, "sh", "-c", KILL_A_CHILD)
        wait_for("the end", lambda: at_rest(bench) and not bench.left(), seconds=120)
    runs = bench.numbers()
    measured.lost = COUNT - len(runs)
    measured.twice = sum(times > 1 for times in runs.values())
    say(f"{variant}: after the kills {measured.lost} tasks are lost, {measured.twice} ran twice")


def at_rest(bench: Bench) -> bool:
    before = bench.recorded()
    time.sleep(2)
    return before == bench.recorded()


def report(stock: Measured, ours: Measured) -> None:
    median = statistics.median
    figures = {
        "throughput_ratio": (median(ours.consumed) / median(stock.consumed), "x"),
        "publish_ratio": (median(ours.published) / median(stock.published), "x"),
        "cpu_ratio": (median(ours.cpu) / median(stock.cpu), "x"),
    }
    for name, measured in {"ours": ours, "stock": stock}.items():
        figures |= {
            f"lost_{name}": (measured.lost, "tasks"),
            f"twice_{name}": (measured.twice, "tasks"),
            f"consumed_{name}": (median(measured.consumed), "tasks/s"),
            f"published_{name}": (median(measured.published), "tasks/s"),
            f"cpu_{name}": (median(measured.cpu), "ms/task"),
        }
    for name, (value, unit) in figures.items():
        digits = 0 if unit in ("tasks", "tasks/s") else 2
        print(f"figure tasks_{name} {value:.{digits}f} {unit}")


def stop(*_: object) -> NoReturn:
    sys.exit("stopped")


def main() -> None:
    if not has_engine():
        sys.exit("!! no Docker engine answers: start it, this benchmark needs a real broker")
    signal.signal(signal.SIGTERM, stop)
    bench = Bench(Stack(FOLDER / "tree", "bench-tasks"))
    measured = {variant: Measured() for variant in VARIANTS}

    def clean_up() -> None:
        run("docker", "rm", "--force", bench.worker, check=False)
        bench.stack.remove()
        shutil.rmtree(FOLDER, ignore_errors=True)

    # What an earlier run left when it was killed.
    clean_up()
    try:
        copy_tree(bench.stack.folder)
        bench.start()
        for round_ in range(1, ROUNDS + 1):
            say(f"round {round_} of {ROUNDS}: {COUNT} tasks that do nothing")
            for variant in VARIANTS:
                measure_speed(bench, variant, measured[variant])
        say(f"{COUNT} tasks while children are killed {CHILD_KILLS - 1} times, the worker once")
        for variant in VARIANTS:
            measure_safety(bench, variant, measured[variant])
    finally:
        say("cleaning up")
        clean_up()
    report(measured["stock"], measured["ours"])


if __name__ == "__main__":
    main()
