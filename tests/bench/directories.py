"""500 directory servers in one worker container beside ldapsearch, as many at a time.

make bench BENCH=directories; QUICK=1 leaves out what is slow to measure.
"""

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pki
import slapd
from bench import Bench, say
from harness import run

SERVERS = 500
AT_ONCE = 100
"""Probes at a time: what the product does in one round."""

FIRST_PORT = 21_000
PER_PROCESS = 250
DELAY = 0.05
"""Seconds that a far server takes for each of its answers, where threads are compared."""

FAR = 200
ROUNDS = 1 if os.environ.get("QUICK") else 5
THREADS = (1, 100) if os.environ.get("QUICK") else (1, 10, 25, 50, 100, 200)

BENCH = Bench("directories")
DATA = BENCH.folder / "data"


@contextmanager
def directories(address: str) -> Iterator[None]:
    """Run 500 ldaps servers on an address."""
    root = pki.issue("directory root", ca=True)
    pki.write_bundle(DATA / "ca.pem", root)
    leaf = pki.issue("directory", root, san=[address])
    running = []
    try:
        for number in range(SERVERS // PER_PROCESS):
            first = FIRST_PORT + number * PER_PROCESS
            ports = range(first, first + PER_PROCESS)
            folder = BENCH.folder / f"slapd-{number}"
            running.append(slapd.start(folder, [leaf], address=address, ports=ports))
        yield
    finally:
        for one in running:
            one.stop()


def inside(*arguments: str) -> dict[str, float]:
    """Run the worker's code in a container of its service; return what it measured."""
    printed = BENCH.inside(
        *("worker-ldap-probe", "python3", "/bench/directories_inside.py", *arguments),
        options=("--rm", f"--volume={DATA}:/data:ro"),
    )
    return json.loads(printed.strip().splitlines()[-1])


def ldapsearch(address: str) -> dict[str, float]:
    """Ask the same of the same servers by ldapsearch, as many at a time."""
    command = [
        *("xargs", "-P", str(AT_ONCE), "-I{}"),
        *("ldapsearch", "-x", "-LLL", "-o", "nettimeout=5", "-H", f"ldaps://{address}:{{}}"),
        *("-D", slapd.READER, "-w", slapd.PASSWORD, "-b", slapd.SUFFIX, "-z", "1"),
        *("(cn=person 7)", "1.1"),
    ]
    ports = "\n".join(str(FIRST_PORT + n) for n in range(SERVERS))
    environment = {"PATH": os.environ["PATH"], "LDAPTLS_REQCERT": "demand"}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        command, input=ports, capture_output=True, text=True, check=False,
        env=environment | {"LDAPTLS_CACERT": str(DATA / "ca.pem")},
    )  # fmt: skip
    seconds, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    found = done.stdout.count("dn: ")
    if found != SERVERS:
        sys.exit(f"!! ldapsearch found {found} of {SERVERS} entries: {done.stderr[:500]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "cpu": cpu}


def memory_of_one(address: str) -> float:
    """Return what one ldapsearch holds at most, in MB."""
    process = subprocess.Popen(
        ["ldapsearch", "-x", "-H", f"ldaps://{address}:{FIRST_PORT}", "-s", "base", "-b", ""],
        stdout=subprocess.DEVNULL, env=os.environ | {"LDAPTLS_CACERT": str(DATA / "ca.pem")},
    )  # fmt: skip
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"!! ldapsearch ended with {process.returncode}")
    return used.ru_maxrss / 1024


def median(measured: Sequence[dict[str, float]], name: str) -> float:
    return statistics.median(one[name] for one in measured)


def measure(address: str) -> None:
    inside("register", address, str(FIRST_PORT), str(SERVERS))
    ours, theirs, probes = [], [], []
    for number in range(1, ROUNDS + 1):
        ours.append(inside("whole_round"))
        probes.append(inside("probes", str(AT_ONCE)))
        theirs.append(ldapsearch(address))
        say(
            f"round {number} of {ROUNDS}: {SERVERS} servers in {ours[-1]['seconds']:.2f} s with "
            f"rows and alerts, {probes[-1]['seconds']:.2f} s without; ldapsearch "
            f"{theirs[-1]['seconds']:.2f} s"
        )
    far = {}
    with slapd.Peer(slapd.after(DELAY), address) as peer:
        for threads in THREADS:
            count = min(FAR, 10 * threads)
            far[threads] = inside("far", str(threads), address, str(peer.port), str(count))
            far[threads]["rate"] = count / far[threads]["seconds"]
            say(f"{threads} threads, answers after {DELAY} s: {far[threads]['rate']:.0f} probes/s")
    with ExitStack() as stack:
        peers = [
            stack.enter_context(slapd.Peer(slapd.hanging, address)) for _ in range(SERVERS // 10)
        ]
        hanging = inside("hanging", *(str(peer.port) for peer in peers))
    say(f"with {len(peers)} that hang: {hanging['seconds']:.1f} s")
    figures(ours, probes, theirs, far, hanging, memory_of_one(address))


def figures(
    ours: Sequence[dict[str, float]],
    probes: Sequence[dict[str, float]],
    theirs: Sequence[dict[str, float]],
    far: dict[int, dict[str, float]],
    hanging: dict[str, float],
    memory: float,
) -> None:
    """Print the figures, medians of the rounds, the ratios to ldapsearch first."""
    for name in ("seconds", "cpu"):
        for what, measured in (("probes", probes), ("round", ours)):
            ratio = median(theirs, name) / median(measured, name)
            print(f"figure directories_{name}_ldapsearch_by_{what} {ratio:.3g} x")
    ratio = AT_ONCE * memory / median(ours, "memory")
    print(f"figure directories_memory_{AT_ONCE}_ldapsearch_by_round {ratio:.3g} x")
    for threads, one in far.items():
        if threads != 1:
            ratio = one["rate"] / far[1]["rate"]
            print(f"figure directories_far_probes_{threads}_threads_by_1 {ratio:.3g} x")
    for what, measured in (("probes", probes), ("round", ours), ("ldapsearch", theirs)):
        print(f"figure directories_seconds_{what} {median(measured, 'seconds'):.3g} s")
        print(f"figure directories_cpu_{what} {median(measured, 'cpu') * 1000 / SERVERS:.3g} ms")
    print(f"figure directories_memory_round {median(ours, 'memory'):.4g} MB")
    print(f"figure directories_memory_one_ldapsearch {memory:.4g} MB")
    print(f"figure directories_seconds_with_{SERVERS // 10}_hanging {hanging['seconds']:.3g} s")


def main() -> None:
    if shutil.which("slapd") is None or shutil.which("ldapsearch") is None:
        sys.exit("!! this benchmark needs slapd and ldapsearch: install slapd and ldap-utils")
    with BENCH.site():
        network = f"{BENCH.stack.project}_egress"
        told = run("docker", "network", "inspect", network, "--format={{json .IPAM.Config}}")
        address = json.loads(told)[0]["Gateway"]
        DATA.mkdir()
        with directories(address):
            measure(address)


if __name__ == "__main__":
    main()
