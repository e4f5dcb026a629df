"""Mail through 1, 2 and 3 workers, from our outbox and from a plain task per mail, in one run.

make bench BENCH=mail
"""

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from bench import TESTS, Bench, say
from harness import run, wait_for

WORKERS = (1, 2, 3)
MAILS = {"outbox": 2_000, "plain": 600}
"""Mails per measurement. A plain task per mail is only here to be compared with."""

PATIENCE = 900
"""Seconds for one measurement; one worker takes 200 ms a mail and more."""

BENCH = Bench("mail")
STACK = BENCH.stack
SINK = f"{STACK.project}-sink"
RECORDS = BENCH.folder / "records"
RECEIVED = RECORDS / "received"
MOUNTS = (
    f"--volume={BENCH.folder / 'identity'}:/identity:ro",
    f"--volume={RECORDS}:/records",
    # The plain tasks verify the sink by the system's store, which is this file then.
    "--env=SSL_CERT_FILE=/identity/ca.pem",
)

Results = dict[tuple[str, int], float]
"""Mails a second by what sent them and by how many workers."""


def start() -> None:
    """Start what sends mail beside the workers, and the sink that takes it."""
    BENCH.add_a_stock_user("sink")
    RECORDS.mkdir()
    RECORDS.chmod(0o777)
    STACK.compose("up", "--detach", "--wait", "--no-deps", "beat")
    run(
        "docker", "run", "--detach", "--name", SINK, f"--network={STACK.project}_egress",
        "--network-alias=sink", *MOUNTS, f"--volume={TESTS / 'bench'}:/bench:ro",
        "--env=PYTHONPATH=/app", STACK.inspect("beat")["Config"]["Image"],
        "python3", "/bench/mail_inside.py", "sink",
    )  # fmt: skip


def inside(options: tuple[str, ...], *command: str) -> str:
    program = ("python3", "/bench/mail_inside.py")
    return BENCH.inside("worker-shared", *program, *command, options=(*options, *MOUNTS))


def received() -> list[tuple[float, bytes]]:
    """When the sink had taken which message."""
    lines = RECEIVED.read_bytes().splitlines() if RECEIVED.exists() else []
    return [(float(when), message_id) for when, message_id in (line.split() for line in lines)]


@contextmanager
def outbox(workers: int) -> Iterator[None]:
    """Run the product's email workers."""
    scale = f"--scale=worker-email={workers}"
    STACK.compose("up", "--detach", "--wait", "--no-deps", scale, "worker-email")
    inside(("--rm",), "enqueue", str(MAILS["outbox"]))
    yield


@contextmanager
def plain(workers: int) -> Iterator[None]:
    """Run stock workers that send a mail per task."""
    names = [f"{STACK.project}-plain-{number}" for number in range(workers)]
    try:
        for name in names:
            inside(("--detach", "--name", name), "work")
        for name in names:
            wait_for("a worker", lambda n=name: " ready." in run("docker", "logs", n))
        inside(("--rm",), "publish", str(MAILS["plain"]))
        yield
    finally:
        run("docker", "rm", "--force", *names, check=False)


VARIANTS = {"outbox": outbox, "plain": plain}


def measure(variant: str, workers: int) -> float:
    """Send mails with so many workers; return how many a second, from the first to the last."""
    count = MAILS[variant]
    RECEIVED.write_bytes(b"")
    RECEIVED.chmod(0o666)
    with VARIANTS[variant](workers):
        told = 0
        end = time.monotonic() + PATIENCE
        while (reached := len(received())) < count:
            if time.monotonic() > end:
                sys.exit(f"!! {variant}: {reached} of {count} mails went out in {PATIENCE} s")
            if reached - told >= count // 10:
                told = reached
                say(f"{variant}, {workers} workers: {reached} of {count} mails")
            time.sleep(1)
        # What is sent twice comes late.
        time.sleep(5)
    times = sorted(when for when, _ in received())
    often = Counter(message_id for _, message_id in received())
    if len(often) != count or set(often.values()) != {1}:
        sys.exit(f"!! {variant}: {len(times)} messages of {len(often)} Message-IDs, not {count}")
    rate = (count - 1) / (times[-1] - times[0])
    say(f"{variant}, {workers} workers: {count} mails, each once, {rate:.2f} mails/s")
    return rate


def report(results: Results) -> None:
    """Print the figures: what more workers bring, ours over the plain tasks, the rates."""
    for variant in VARIANTS:
        for workers in WORKERS[1:]:
            ratio = results[variant, workers] / results[variant, 1]
            print(f"figure mail_scaling_{variant}_{workers} {ratio:.2f} x")
    for workers in WORKERS:
        ratio = results["outbox", workers] / results["plain", workers]
        print(f"figure mail_throughput_ratio_{workers} {ratio:.2f} x")
    for (variant, workers), rate in results.items():
        print(f"figure mail_throughput_{variant}_{workers} {rate:.4g} mails/s")


def main() -> None:
    with BENCH.site(SOC_SMTP_HOST="sink", SOC_MAIL_PER_MINUTE="9999999"):
        start()
        results = {
            (variant, workers): measure(variant, workers)
            for variant in VARIANTS
            for workers in WORKERS
        }
    report(results)


if __name__ == "__main__":
    main()
