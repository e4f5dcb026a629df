"""The event stream: ours, one task and one row per event, and the barest loop there can be.

make bench BENCH=ingest; QUICK=1 takes less of everything.
"""

import json
import os
import re
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pika

from bench import Bench, p95, page_times, say
from harness import run, wait_for

QUICK = bool(os.environ.get("QUICK"))
ROUNDS = 1 if QUICK else 3
EVENTS = {"ours": 10_000 if QUICK else 40_000, "bare": 10_000 if QUICK else 40_000}
"""Events per measurement, about 1 KB each, the same for all that take batches."""

TASKS = 500 if QUICK else 3_000
"""Events for a task each, which is only here to be compared with."""

BACKLOG = 20_000 if QUICK else 100_000
STEADY = 20 if QUICK else 180
"""Seconds of the steady load."""

ROBOTS, EACH_PER_HOUR = 14, 294
PATIENCE = 600

BENCH = Bench("ingest")
STACK = BENCH.stack
RECORDS = BENCH.folder / "records"
WORKERS = [f"{STACK.project}-ingest-{number}" for number in (1, 2)]
LIBRARY = Path(pika.__file__).parent

Results = dict[str, list[float]]
"""The values of all rounds by the figure's name and unit."""


def clean_up() -> None:
    run("docker", "rm", "--force", *WORKERS, check=False)


def mounts() -> tuple[str, ...]:
    return (
        f"--volume={RECORDS}:/records",
        f"--volume={LIBRARY}:/library/pika:ro",
        f"--volume={BENCH.folder / 'identity'}:/identity:ro",
        f"--volume={STACK.folder / 'env' / STACK.site / 'logstash'}:/run/logstash:ro",
    )


def inside(*command: str, options: tuple[str, ...] = ("--rm",)) -> str:
    """Run a part of the benchmark in the worker's own container: limits, files, network."""
    program = ("python3", "/bench/ingest_inside.py", *command)
    return BENCH.inside("worker-events", *program, options=(*options, *mounts()))


@contextmanager
def working(variant: str, containers: int) -> Iterator[None]:
    """Have containers ready, which begin at ``go`` and tell their CPU time when they end."""
    shutil.rmtree(RECORDS, ignore_errors=True)
    RECORDS.mkdir()
    RECORDS.chmod(0o777)
    for name in WORKERS[:containers]:
        inside("work", variant, options=("--detach", "--name", name))
    try:
        wait_for("the workers", lambda: len(list(RECORDS.glob("*.ready"))) == containers, 60)
        yield
        run("docker", "stop", "--time", "30", *WORKERS[:containers])
    finally:
        clean_up()


def go() -> None:
    (RECORDS / "go").touch()


def cpu_ms() -> float:
    """How much CPU time the workers have used since ``go``."""
    return 1000 * sum(float(path.read_text()) for path in RECORDS.glob("*.cpu"))


def queries(*statements: str) -> list[list[object]]:
    """Ask the database as root; nothing of ours runs for it."""
    printed = STACK.exec(
        "mariadb", "sh", "-c",
        "MYSQL_PWD=$(cat /run/site/root_password) mariadb -uroot -N -B soc",
        stdin=";\n".join(statements) + ";",
    )  # fmt: skip
    return [line.split("\t") for line in printed.strip().splitlines()]


def stored() -> int:
    return int(queries("SELECT COUNT(*) FROM events_event")[0][0])


def clear() -> None:
    queries("TRUNCATE events_event", "TRUNCATE events_ingestcount")


def rate() -> float:
    """Rows a second by the rows' own times, without those of the first batch."""
    first = "(SELECT MIN(received_at) FROM events_event)"
    ((rows, seconds),) = queries(
        f"SELECT COUNT(*), TIMESTAMPDIFF(MICROSECOND, {first}, MAX(received_at)) / 1e6 "
        f"FROM events_event WHERE received_at > {first}"
    )
    return float(rows) / float(seconds)


def publish(*options: str) -> dict[str, float]:
    """Publish events of simulated robots; return what was published."""
    printed = BENCH.inside(
        "worker-events", "python3", "/app/manage.py", "events", "simulate",
        "--identity=/run/logstash", f"--bots={ROBOTS}", "--only=heartbeat", *options,
        options=("--rm", *mounts()),
    )  # fmt: skip
    # What it tells of its progress is mixed in.
    return json.loads(re.search(r'\{"good".*\}', printed)[0])


def wait_until_stored(count: int) -> None:
    wait_for(f"{count} rows", lambda: stored() >= count, PATIENCE)


# --- What is measured ---------------------------------------------------------------------------


def measure_speed(variant: str, containers: int, results: Results) -> None:
    """Have a queue of events emptied."""
    clear()
    count = TASKS if variant == "task" else EVENTS[variant]
    with working(variant, containers):
        if variant == "task":
            inside("publish", str(count))
        else:
            publish("--hurry", f"--events={count}")
        go()
        wait_until_stored(count)
        speed = rate()
    name = f"{variant}_{containers}" if variant == "ours" else variant
    say(f"{name}: {speed:.0f} events/s, {cpu_ms() / count:.3f} ms of CPU each")
    results.setdefault(f"rate_{name} events/s", []).append(speed)
    results.setdefault(f"cpu_{name} ms/event", []).append(cpu_ms() / count)


def measure_backlog(results: Results) -> None:
    """Have a long queue emptied while people look at the board."""
    clear()
    browser = STACK.browser()
    browser.sign_in(STACK.secret("migrate", "admin_password"))

    def look(until: Callable[[], object]) -> list[float]:
        return page_times(browser, "/board/live/", until)

    with working("ours", 1):
        publish("--hurry", f"--events={BACKLOG}")
        end = time.monotonic() + (5 if QUICK else 20)
        look(lambda: time.monotonic() > end - 3)
        quiet = look(lambda: time.monotonic() > end)
        go()
        drained = look(lambda: (RECORDS / "memory").exists() and memory()[-1][0] >= BACKLOG)
        wait_until_stored(BACKLOG)
        speed = rate()
    sizes = [size for count, size in memory() if count > BACKLOG / 10]
    say(f"a backlog of {BACKLOG}: {speed:.0f} events/s, {sizes[0]:.0f} to {max(sizes):.0f} MiB")
    say(f"board, p95: {p95(quiet):.0f} ms before, {p95(drained):.0f} ms meanwhile")
    results["backlog_rate events/s"] = [speed]
    results["backlog_memory_early MiB"] = [sizes[0]]
    results["backlog_memory_peak MiB"] = [max(sizes)]
    results["web_p95_quiet ms"] = [p95(quiet)]
    results["web_p95_draining ms"] = [p95(drained)]


def memory() -> list[tuple[int, float]]:
    """Return the worker's size in MiB by how many events it had taken then."""
    lines = (RECORDS / "memory").read_text().splitlines()
    return [(int(count), float(size)) for count, size in map(str.split, lines)]


def measure_retention(results: Results) -> None:
    """Have events taken in while as many are deleted."""
    with working("ours", 1):
        queries("UPDATE events_event SET received_at = received_at - INTERVAL 2 DAY")
        old = stored()
        publish("--hurry", f"--events={EVENTS['ours']}")
        go()
        deleting = BENCH.inside(
            "worker-shared", "python3", "/bench/ingest_inside.py", "forget",
            options=("--rm", *mounts()),
        )  # fmt: skip
        wait_until_stored(old - int(deleting.split()[-1]) + EVENTS["ours"])
        queries("DELETE FROM events_event WHERE received_at < UTC_TIMESTAMP() - INTERVAL 1 DAY")
        speed = rate()
    say(f"with {deleting.split()[-1]} rows deleted meanwhile: {speed:.0f} events/s")
    results["rate_while_deleting events/s"] = [speed]


def measure_steady(results: Results) -> None:
    """Have the events of a site's robots taken in as they come."""
    clear()
    per_second = ROBOTS * EACH_PER_HOUR / 3600
    with working("ours", 1):
        go()
        start = time.monotonic()
        publish(f"--rate={per_second}", f"--minutes={STEADY / 60}")
        seconds = time.monotonic() - start
    say(f"{per_second:.2f} events/s: {cpu_ms() / seconds / 10:.2f} % of a core")
    results["steady_cpu %"] = [cpu_ms() / seconds / 10]


def report(results: Results) -> None:
    """Print the figures, medians of the rounds: ratios, the rest."""
    medians = {key: statistics.median(values) for key, values in results.items()}
    best = medians["rate_ours_1 events/s"]
    print(f"figure ingest_of_the_limit {100 * best / medians['rate_bare events/s']:.0f} %")
    print(f"figure ingest_of_a_task_each {best / medians['rate_task events/s']:.1f} x")
    for key, value in medians.items():
        name, unit = key.split(" ")
        print(f"figure ingest_{name} {value:.4g} {unit}")


def main() -> None:
    results: Results = {}
    with BENCH.site(clean_up, whole=True):
        BENCH.add_a_stock_user("rabbitmq")
        STACK.compose("stop", "beat", "flower", "catcher", *WATCHERS)
        for number in range(1, ROUNDS + 1):
            say(f"round {number} of {ROUNDS}")
            measure_speed("task", 1, results)
            measure_speed("bare", 1, results)
            measure_speed("ours", 1, results)
            measure_speed("ours", 2, results)
        measure_backlog(results)
        measure_retention(results)
        measure_steady(results)
    report(results)


WATCHERS = (
    *("worker-email", "worker-shared", "worker-events", "worker-ssl-certs", "worker-ldap-probe"),
    "worker-mail-collector",
)

if __name__ == "__main__":
    main()
