"""The stock scheduler and ours beside each other: CPU, statements, memory, start, edits, lateness.

make bench BENCH=beat            every case, about half an hour
make bench BENCH=beat QUICK=1    only 10,000 schedules a minute on MariaDB within the limits of
                                 beat's container, with and without publishing, and the floor
make bench BENCH=beat CASES=ours_sqlite    only cases whose name holds this
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench import TESTS, Bench, say
from harness import REPOSITORY, run, wait_for
from soc.provision import environment

SCHEDULERS = {
    "stock": "django_celery_beat.schedulers:DatabaseScheduler",
    "ours": "soc.beat.scheduler:Scheduler",
}
SIZES = (100, 1_000, 10_000, 50_000)
HEADLINE = 10_000
PERIOD = 60.0
"""Seconds between two runs of each schedule; beat_inside.py has the same."""

WINDOW = {"every": 20.0, "idle": 15.0, "limited": 60.0}
"""Seconds over which a case is measured: stock falls behind for ever in some."""

SETTLE = 4.0
"""Seconds between the first due time and the window."""

EDITS = 3
EDIT_LIMIT = 30.0
START_LIMIT = 90.0
EARLY = 0.005
"""Seconds by which a dispatch may precede its due time: clocks and columns round."""

UNLIMITED = {"SOC_BEAT_CPUS": "1.00", "SOC_BEAT_MEMORY": "1G"}
_EXAMPLE, _ = environment.parse((REPOSITORY / "env" / "example.env").read_text())
LIMITED = {name: _EXAMPLE[name] for name in UNLIMITED}
"""What a site gives beat unless somebody changes it."""

UNITS = {
    "cpu": "s/min",
    "cpu_per_dispatch": "us",
    "cpu_first": "us",
    "rate": "/s",
    "needed": "/s",
    "late_p50": "s",
    "late_p99": "s",
    "late_max": "s",
    "statements": "/s",
    "controls": "/s",
    "rss": "MiB",
    "peak": "MiB",
    "start": "s",
    "edit": "s",
    "edit_cpu": "ms",
    "floor": "us",
    "floor_paced": "us",
}
BENCH = Bench("beat")
FOLDER, STACK = BENCH.folder, BENCH.stack
RECORDS = FOLDER / "records"
BEAT, CLERK, CONSUMER = (f"{STACK.project}-{name}" for name in ("case", "clerk", "consumer"))


@dataclass(frozen=True)
class Case:
    """One scheduler under one load."""

    variant: str
    database: str
    count: int
    kind: str
    publishing: str = "nothing"
    limited: bool = False

    @property
    def load(self) -> str:
        """What distinguishes the load, whoever carries it."""
        parts = [self.database, str(self.count), self.kind]
        parts += ["amqps"] if self.publishing == "amqps" else []
        return "_".join(parts + (["limited"] if self.limited else []))

    def __str__(self) -> str:
        return f"{self.variant}_{self.load}"

    @property
    def seconds(self) -> float:
        return WINDOW["limited" if self.limited else self.kind]

    @property
    def dispatches(self) -> list[tuple[float, int]]:
        """What was dispatched so far: the time and the schedule's number."""
        if self.publishing == "amqps":
            lines = read(RECORDS / "consumed").decode().rpartition("\n")[0].splitlines()
            fields = (line.split("\t") for line in lines)
            return [(float(at), int(name.split()[-1])) for at, name, *_ in fields]
        content = read(RECORDS / "unpublished")
        whole = content[: len(content) // 16 * 16]
        return [(at, int(number)) for at, number in struct.iter_unpack("dd", whole)]


def read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


class Unmeasured(Exception):
    """A case, or a part of one, that could not be measured; the message says why."""


Values = dict[str, float]
Results = dict[Case, Values]
missing: list[str] = []


def start() -> None:
    for name in ("records", "sqlite"):
        (FOLDER / name).mkdir()
        (FOLDER / name).chmod(0o777)
    sql("SET GLOBAL userstat = 1")
    inside("worker-shared", ("--detach", "--name", CLERK), "sleep", "infinity")


def clean_up() -> None:
    run("docker", "rm", "--force", BEAT, CLERK, CONSUMER, check=False)


def inside(service: str, options: tuple[str, ...], *command: str) -> str:
    """Run a command in a container as the product's service has it: limits, files, network."""
    mounts = (
        f"--volume={TESTS / 'beat_consumer.py'}:/beat_consumer.py:ro",
        f"--volume={RECORDS}:/records",
        f"--volume={FOLDER / 'sqlite'}:/sqlite",
    )
    return BENCH.inside(service, *command, options=(*options, *mounts))


def clerk(*command: str) -> str:
    """Have the container beside beat's do something, so that beat's pays nothing for it."""
    return run("docker", "exec", CLERK, "python3", "/bench/beat_inside.py", *command)


def sql(statement: str) -> str:
    return STACK.exec(
        "mariadb", "sh", "-c",
        'MYSQL_PWD=$(cat /run/site/root_password) exec mariadb --user=root -N -e "$1"', "-",
        statement,
    )  # fmt: skip


def statements(case: Case) -> tuple[float, float, float]:
    """Return the clock, and how many statements on data and others the server has had of us."""
    if case.database == "sqlite":
        line = snapshot()
        return line["at"], line["data"], line["control"]
    printed = sql(
        "SELECT UNIX_TIMESTAMP(NOW(6)), SUM(SELECT_COMMANDS + UPDATE_COMMANDS),"
        " SUM(OTHER_COMMANDS) FROM information_schema.USER_STATISTICS WHERE USER LIKE 'soc%'"
    )
    at, data, control = printed.split()
    return float(at), float(data), float(control)


def snapshots() -> list[Values]:
    return [json.loads(line) for line in read(RECORDS / "snapshots").splitlines()]


def snapshot() -> Values:
    """Return what beat says of itself now."""
    known = len(snapshots())
    if not alive():
        raise Unmeasured(f"beat has ended: {last_words()}")
    run("docker", "kill", "--signal=USR1", BEAT)
    return wait_for("a snapshot", lambda: snapshots()[known:], seconds=30)[0]


def alive() -> bool:
    return run("docker", "inspect", "--format={{.State.Running}}", BEAT).strip() == "true"


def last_words() -> str:
    state = run("docker", "inspect", "--format={{json .State}}", BEAT)
    oom = ", out of memory" if json.loads(state)["OOMKilled"] else ""
    lines = run("docker", "logs", "--tail=3", BEAT).strip().splitlines()
    return (lines[-1] if lines else "without a word") + oom


@contextmanager
def consuming(case: Case) -> Iterator[None]:
    """Have the queue's messages taken as they come, while a case publishes."""
    if case.publishing == "nothing":
        yield
        return
    STACK.exec("rabbitmq", "rabbitmqctl", "-q", "purge_queue", "ssl_certs")
    inside(
        "worker-ssl-certs", ("--detach", "--name", CONSUMER),
        "python3", "/beat_consumer.py", "ssl_certs", "/records/consumed",
    )  # fmt: skip
    try:
        wait_for("the consumer", lambda: "consuming" in run("docker", "logs", CONSUMER))
        yield
    finally:
        run("docker", "rm", "--force", CONSUMER, check=False)


@contextmanager
def beating(case: Case) -> Iterator[None]:
    inside(
        "beat", ("--detach", "--name", BEAT),
        "python3", "/bench/beat_inside.py", "beat",
        case.database, case.publishing, SCHEDULERS[case.variant],
    )  # fmt: skip
    try:
        yield
        if case.variant == "ours":
            # A lease is given back; stock has nothing to give and may write for minutes.
            run("docker", "stop", "--time=20", BEAT)
    finally:
        if alive() is False and "Traceback" in run("docker", "logs", BEAT):
            missing.append(f"{case}: beat ended with an error: {last_words()}")
        run("docker", "rm", "--force", BEAT, check=False)


def fill(case: Case, lead: float) -> float:
    """Fill the tables and wait until ``lead`` seconds before the first due time; return that.

    Raises:
        Unmeasured: the database is too slow.
    """
    allowed = 4 + case.count * 0.0005
    for _ in range(3):
        first_due = time.time() + lead + allowed
        clerk("fill", case.database, case.kind, str(case.count), str(first_due))
        early = first_due - lead - time.time()
        if case.kind == "idle":
            return first_due
        if early >= 0:
            time.sleep(early)
            return first_due
        allowed = 1.5 * (allowed - early)
    raise Unmeasured(f"filling the tables takes more than {allowed:.0f} s")


def measure(case: Case, lead: float) -> Values:
    """Measure a case; ``lead`` is how long before the first due time beat is started, seconds."""
    shutil.rmtree(RECORDS, ignore_errors=True)
    RECORDS.mkdir()
    RECORDS.chmod(0o777)
    STACK.set(**(LIMITED if case.limited else UNLIMITED))
    first_due = fill(case, lead)
    values: Values = {}
    with consuming(case), beating(case):
        values["start"] = wait_for_start(case)
        quiet = time.time() if case.kind == "idle" else first_due
        time.sleep(max(0, quiet + SETTLE - time.time()))
        if case.publishing == "amqps":
            values["cpu_first"] = measure_first_runs(case)
        values |= measure_window(case, first_due)
        values |= measure_edits(case, values["cpu"] / 60)
    return values


def dispatched_at(case: Case, number: int) -> float | None:
    return next((at for at, found in case.dispatches if found == number), None)


def wait_for_start(case: Case) -> float:
    """Return the seconds from when beat is loaded to the dispatch of what is due already."""
    line = wait_for("beat", lambda: read(RECORDS / "started").rpartition(b"\n")[0])
    return wait_for_dispatch(case, -1, START_LIMIT, "the start") - json.loads(line)["at"]


def wait_for_dispatch(case: Case, number: int, seconds: float, what: str) -> float:
    end = time.monotonic() + seconds
    while (at := dispatched_at(case, number)) is None:
        if time.monotonic() > end:
            raise Unmeasured(f"{what} took longer than {seconds:.0f} s")
        if case.publishing == "nothing":
            snapshot()
        time.sleep(0.5)
    return at


def measure_first_runs(case: Case) -> float:
    """Return the CPU per dispatch, in microseconds, while every schedule runs for the first time.

    Ours has Celery build each schedule's first message and uses it again from then on.
    """
    first = snapshot()
    time.sleep(PERIOD)
    last = snapshot()
    ran = sum(first["at"] <= at < last["at"] for at, _ in case.dispatches)
    return (last["cpu"] - first["cpu"]) / ran * 1e6 if ran else 0.0


def measure_window(case: Case, first_due: float) -> Values:
    counted, first = statements(case), snapshot()
    time.sleep(case.seconds)
    last, counted_last = snapshot(), statements(case)
    time.sleep(1.5)
    horizon = snapshot()["at"] - 1
    elapsed = last["at"] - first["at"]
    used = last["cpu"] - first["cpu"]
    passed = counted_last[0] - counted[0]
    values = {
        "cpu": used / elapsed * 60,
        "statements": (counted_last[1] - counted[1]) / passed,
        "controls": (counted_last[2] - counted[2]) / passed,
        "rss": last["rss"],
        "peak": last["peak"],
    }
    if case.kind == "every":
        inside_window = [at for at, _ in case.dispatches if first["at"] <= at < last["at"]]
        values |= {
            "rate": len(inside_window) / elapsed,
            "needed": case.count / PERIOD,
            "cpu_per_dispatch": used / len(inside_window) * 1e6 if inside_window else 0.0,
            **lateness(case, first_due, first["at"], last["at"], horizon),
        }
    return values


def lateness(case: Case, first_due: float, start: float, end: float, horizon: float) -> Values:
    """Return how late the runs due within a window were, in seconds.

    A run's dispatch is the schedule's first one from its due time on; one that has not come by
    ``horizon`` counts as being as late as it is by then.
    """
    by_number = defaultdict(list)
    for at, number in case.dispatches:
        by_number[number].append(at)
    late = []
    for number in range(case.count):
        due = first_due + number * PERIOD / case.count
        # A schedule has one due time in each period; a window may hold none of it.
        due += -(-(start - due) // PERIOD) * PERIOD
        while due < end:
            came = (at for at in sorted(by_number[number]) if at >= due - EARLY)
            late.append(next(came, horizon) - due)
            due += PERIOD
    late.sort()
    if not late:
        raise Unmeasured("no run was due in the window")
    return {
        "late_p50": late[len(late) // 2],
        "late_p99": late[int(len(late) * 0.99)],
        "late_max": late[-1],
    }


def measure_edits(case: Case, usual: float) -> Values:
    """Return how long edits took to be live, the median, and the CPU of one, in milliseconds.

    ``usual`` is the share of a core that beat uses without edits.
    """
    waits = []
    try:
        first = snapshot()
        for number in range(2, 2 + EDITS):
            committed = float(clerk("edit", case.database, str(number)))
            live = wait_for_dispatch(case, -number, EDIT_LIMIT, "an edit to be live")
            waits.append(live - committed)
        last = snapshot()
    except (Unmeasured, AssertionError) as reason:
        missing.append(f"{case}: {reason}")
        return {}
    values = {"edit": sorted(waits)[EDITS // 2]}
    if case.kind == "idle":
        extra = last["cpu"] - first["cpu"] - usual * (last["at"] - first["at"])
        values["edit_cpu"] = extra * 1000 / EDITS
    return values


def measure_floor() -> Values:
    """Return the CPU per message, in microseconds, of py-amqp with pipelined confirms."""
    say("the floor: the same messages with py-amqp alone, confirms pipelined")
    shutil.rmtree(RECORDS, ignore_errors=True)
    RECORDS.mkdir()
    RECORDS.chmod(0o777)
    STACK.set(**LIMITED)
    case = Case("ours", "mariadb", HEADLINE, "every", "amqps", limited=True)
    with consuming(case):
        printed = inside(
            "beat", ("--rm",), "python3", "/bench/beat_inside.py", "floor",
            str(HEADLINE), str(WINDOW["limited"]),
        )  # fmt: skip
    measured = json.loads(printed.strip().splitlines()[-1])
    return {"floor": measured["fast"] * 1e6, "floor_paced": measured["paced"] * 1e6}


def cases() -> Iterator[Case]:
    """Yield the cases, idle ones first: they tell how long the others need to start."""
    headline = Case("stock", "mariadb", HEADLINE, "every", limited=True)
    loads = [replace(headline, kind="idle"), headline, replace(headline, publishing="amqps")]
    if not os.environ.get("QUICK"):
        for count in SIZES:
            for database in ("mariadb", "sqlite"):
                loads.append(Case("stock", database, count, "idle"))
                loads.append(Case("stock", database, count, "every"))
            # The embedded stack, which runs on SQLite, has a broker of files.
            loads.append(Case("stock", "mariadb", count, "every", "amqps"))
    for load in loads:
        for variant in SCHEDULERS:
            case = replace(load, variant=variant)
            if os.environ.get("CASES", "") in str(case):
                yield case


def measure_all() -> Results:
    results: Results = {}
    starts: dict[tuple[str, int, bool], float] = {}
    for case in cases():
        say(f"{case}")
        # Interpreter and imports come before what is measured as the start.
        lead = starts.get((case.variant, case.count, case.limited), 15.0) + 6
        lead += 14 if case.limited else 0
        try:
            results[case] = values = measure(case, lead)
        except (Unmeasured, AssertionError) as reason:
            missing.append(f"{case}: {reason}")
            say(f"not measured: {reason}")
            continue
        if case.kind == "idle":
            starts[case.variant, case.count, case.limited] = values["start"]
        say("  ".join(f"{name} {value:.4g}" for name, value in values.items()))
    return results


def report(results: Results, floor: Values) -> None:
    """Print the figures: ratios, everything measured, and what was not."""
    for case, values in results.items():
        stock = results.get(replace(case, variant="stock"))
        if case.variant == "stock" or stock is None:
            continue
        what = "cpu_per_dispatch" if case.kind == "every" else "cpu"
        print(f"figure beat_{what}_ratio_{case.load} {stock[what] / values[what]:.3g} x")
        if case.publishing == "amqps" and case.limited:
            for name, microseconds in floor.items():
                ratio = values["cpu_per_dispatch"] / microseconds
                print(f"figure beat_to_{name}_ratio_{case.load} {ratio:.3g} x")
    for name, value in floor.items():
        print(f"figure beat_{name} {value:.3g} {UNITS[name]}")
    for case, values in results.items():
        for name, value in values.items():
            print(f"figure beat_{name}_{case} {value:.4g} {UNITS[name]}")
    for text in missing:
        print(f"not measured: {text}")


def main() -> None:
    with BENCH.site(clean_up):
        start()
        results = measure_all()
        floor = measure_floor()
    report(results, floor)


if __name__ == "__main__":
    main()
