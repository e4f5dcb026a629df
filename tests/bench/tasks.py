"""No-op tasks with stock Celery settings and with ours, on one broker, in one run.

make bench BENCH=tasks
"""

import shutil
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import Bench, say
from harness import run, wait_for

ROUNDS = 2
FAST_TASKS = 2_000
"""Tasks per measurement of speed; they do nothing."""

KILLED_TASKS = 5_000
"""Tasks that run while workers are killed."""

WORK = 0.004
"""Seconds that such a task sleeps, so that a kill hits a running one."""

KILLS = 12
"""One of them, in the middle, is of the whole worker, the others of a child."""

VARIANTS = ("ours", "ours_prefetch_4", "stock")
UNITS = {
    "lost": "tasks",
    "twice": "tasks",
    "throughput": "tasks/s",
    "publish": "tasks/s",
    "cpu": "ms/task",
}
BENCH = Bench("tasks")
FOLDER, STACK = BENCH.folder, BENCH.stack
RECORDS = FOLDER / "records"
WORKER = f"{STACK.project}-worker"
KILL_A_CHILD = (
    "main=$(cut -d ' ' -f 1 /proc/1/task/1/children);"
    "until kill -9 $(cut -d ' ' -f 1 /proc/$main/task/$main/children); do sleep 0.1; done"
)

Results = defaultdict[tuple[str, str], list[float]]
"""The values of all rounds by what was measured and of which variant."""


def inside(options: tuple[str, ...], *command: str) -> str:
    """Run a command in a container as the product's worker has it: limits, files, network."""
    identity, records = f"{FOLDER / 'identity'}:/identity:ro", f"{RECORDS}:/records"
    mounts = (f"--volume={identity}", f"--volume={records}")
    command = ("python3", "/bench/tasks_inside.py", *command)
    return BENCH.inside("worker-ssl-certs", *command, options=(*options, *mounts))


def publish(variant: str, count: int, seconds: float) -> float:
    """Publish tasks to an empty queue; return how many a second."""
    shutil.rmtree(RECORDS, ignore_errors=True)
    RECORDS.mkdir()
    RECORDS.chmod(0o777)
    printed = inside(("--rm",), "publish", variant, str(count), str(seconds))
    return count / float(printed.split()[-1])


@contextmanager
def working(variant: str) -> Iterator[None]:
    inside(("--detach", "--name", WORKER), "work", variant)
    try:
        yield
        run("docker", "stop", "--time", "30", WORKER)
    finally:
        run("docker", "rm", "--force", WORKER, check=False)


def record_files() -> list[Path]:
    return list(RECORDS.glob("*.record"))


def recorded() -> int:
    return sum(path.stat().st_size for path in record_files()) // 4


def runs() -> Counter[bytes]:
    """How often each task ran."""
    content = b"".join(path.read_bytes() for path in record_files())
    return Counter(content[at : at + 4] for at in range(0, len(content), 4))


def measure_speed(variant: str, results: Results) -> None:
    published = publish(variant, FAST_TASKS, 0.0)
    with working(variant):
        wait_for("every task", lambda: recorded() >= FAST_TASKS, seconds=120)
    ready, told = RECORDS / "worker_ready.cpu", RECORDS / "worker_shutting_down.cpu"
    last = max(path.stat().st_mtime for path in record_files())
    consumed = FAST_TASKS / (last - ready.stat().st_mtime)
    cpu = (float(told.read_text()) - float(ready.read_text())) * 1000 / FAST_TASKS
    say(f"{variant}: {published:.0f} published/s, {consumed:.0f} consumed/s, {cpu:.2f} ms of CPU")
    # How the worker prefetches does not matter to a publisher.
    results["publish", variant.removesuffix("_prefetch_4")].append(published)
    results["throughput", variant].append(consumed)
    results["cpu", variant].append(cpu)


def measure_safety(variant: str, results: Results) -> None:
    publish(variant, KILLED_TASKS, WORK)
    with working(variant):
        for kill in range(1, KILLS + 1):
            # Spread over the run, with some tasks left for after the last one.
            reached = KILLED_TASKS * kill // (KILLS + 2)
            wait_for("progress", lambda n=reached: recorded() >= n)
            if kill == KILLS // 2:
                run("docker", "kill", WORKER)
                run("docker", "start", WORKER)
            else:
                run("docker", "exec", WORKER, "sh", "-c", KILL_A_CHILD)
        wait_for("the end", is_done, seconds=120)
    counted = runs()
    lost, twice = KILLED_TASKS - len(counted), sum(times > 1 for times in counted.values())
    say(f"{variant}: {lost} tasks are lost, {twice} ran twice")
    results["lost", variant].append(lost)
    results["twice", variant].append(twice)


def is_done() -> bool:
    """Whether nothing runs any more and nothing waits: what has not run by then is lost."""
    before = recorded()
    time.sleep(2)
    ours, stock = STACK.queues(), STACK.queues("bench")
    waiting = ours["ssl_certs"]["messages"] + sum(queue["messages"] for queue in stock.values())
    return recorded() == before and not waiting


def measure() -> Results:
    results: Results = defaultdict(list)
    for number in range(1, ROUNDS + 1):
        say(f"round {number} of {ROUNDS}: {FAST_TASKS} tasks that do nothing")
        for variant in VARIANTS:
            measure_speed(variant, results)
    say(f"{KILLED_TASKS} tasks; a child is killed {KILLS - 1} times, the whole worker once")
    for variant in ("ours", "stock"):
        measure_safety(variant, results)
    return results


def report(results: Results) -> None:
    """Print the figures, medians of the rounds: ratios, losses, the rest."""
    medians = {key: statistics.median(values) for key, values in results.items()}
    for (what, variant), value in medians.items():
        if variant != "stock" and UNITS[what] != "tasks":
            name = f"{what}_ratio{variant.removeprefix('ours')}"
            print(f"figure tasks_{name} {value / medians[what, 'stock']:.2f} x")
    for what, unit in UNITS.items():
        for variant in VARIANTS:
            if (what, variant) in medians:
                print(f"figure tasks_{what}_{variant} {medians[what, variant]:.4g} {unit}")


def main() -> None:
    with BENCH.site(lambda: run("docker", "rm", "--force", WORKER, check=False)):
        BENCH.add_a_stock_user("localhost")
        results = measure()
    report(results)


if __name__ == "__main__":
    main()
