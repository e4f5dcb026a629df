"""1,000 TLS endpoints through one worker container, nmap, and openssl in a shell loop, in one run.

make bench BENCH=probes; QUICK=1 measures 300 endpoints and leaves out the rounds that repeat.
"""

import json
import os
import resource
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import pki
from bench import TESTS, Bench, p95, page_times, say
from harness import run, wait_for
from soc.provision import environment

QUICK = bool(os.environ.get("QUICK"))
ENDPOINTS = 300 if QUICK else 1000
ROUNDS = 1 if QUICK else 3
FIRST_PORT = 10_000
SERVERS = 4
SHELLS = 50
"""Processes of openssl at a time."""

PATIENCE = 10
"""Seconds that the shell loop gives a peer: ours gives 5 to connect and 5 for TLS."""

HOSTS = 10
"""Names of the peers: each of their ports is that many endpoints of the fleet."""

FLEET_SECONDS = 60 if QUICK else 150

NMAP_PATIENCE = 30 if QUICK else 120
"""Seconds that nmap gives a script."""

BENCH = Bench("probes")
STACK = BENCH.stack
PEERS = f"{STACK.project}-peers"
FOLDER = BENCH.folder / "peers"
WORKER = "worker-ssl-certs"

TOOLS = ("nmap", "openssl")


@dataclass(frozen=True)
class Plan:
    """What the peers present: a name for each port, the silent and the dead among them."""

    names: dict[int, str]
    hanging: frozenset[int] = frozenset()
    dead: frozenset[int] = frozenset()

    @property
    def listening(self) -> list[int]:
        return [port for port in self.names if port not in self.dead]


@dataclass(frozen=True)
class Cost:
    """What one round took."""

    seconds: float
    cpu: float
    mebibytes: float = 0.0


def healthy() -> Plan:
    """Endpoints that all answer; nine in ten are as they should be."""
    ports = range(FIRST_PORT, FIRST_PORT + ENDPOINTS)
    return Plan({port: f"h{port}.bench.internal" for port in ports})


def mixed() -> Plan:
    """The same with a tenth that accept and say nothing, and a twentieth where nobody listens."""
    names = healthy().names
    ports = list(names)
    return Plan(names, frozenset(ports[::10]), frozenset(ports[5::20]))


def write(plan: Plan) -> None:
    """Write what the peers present, and the plan for them."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    root = pki.issue("bench root", ca=True)
    middle = pki.issue("bench issuing CA", root, ca=True)
    (FOLDER / "root.crt").write_bytes(root.cert_pem)
    for port in plan.listening:
        if port in plan.hanging:
            continue
        leaf = _leaf(port, plan.names[port], middle)
        chain = leaf.cert_pem if port % 50 == 3 else leaf.cert_pem + middle.cert_pem
        (FOLDER / f"{port}.pem").write_bytes(leaf.key_pem + chain)
    told = {"names": plan.names, "listening": plan.listening}
    (FOLDER / "plan.json").write_text(json.dumps(told))
    for path in FOLDER.iterdir():
        path.chmod(0o644)


def _leaf(port: int, name: str, issuer: pki.Issued) -> pki.Issued:
    """Return a certificate; one in fifty each is expired, for another name, or self-signed."""
    match port % 50:
        case 0:
            past = {"not_before": pki.NOW - 9 * pki.DAY, "not_after": pki.NOW - pki.DAY}
            return pki.issue(name, issuer, san=[name], **past)
        case 1:
            return pki.issue(name, issuer, san=["elsewhere.internal"])
        case 2:
            return pki.issue(name, san=[name])
    return pki.issue(name, issuer, san=[name], not_after=pki.NOW + 300 * pki.DAY)


def start_peers() -> str:
    """Start the servers in a container of their own; return its address."""
    run("docker", "rm", "--force", PEERS, check=False)
    image = environment.parse(STACK.env_file.read_text())[0]["APP_IMAGE"]
    run(
        "docker", "run", "--detach", "--name", PEERS, f"--network={STACK.project}_egress",
        *(f"--network-alias={name}" for name in ("peers", *fleet())),
        f"--volume={TESTS / 'bench'}:/bench:ro",
        f"--volume={FOLDER}:/certificates:ro", "--ulimit=nofile=8192", image,
        "python3", "/bench/probes_inside.py", "serve", "/certificates", str(SERVERS),
    )  # fmt: skip
    wait_for("the peers", lambda: "ready" in run("docker", "logs", PEERS))
    time.sleep(3)
    networks = json.loads(run("docker", "inspect", PEERS))[0]["NetworkSettings"]["Networks"]
    return next(iter(networks.values()))["IPAddress"]


def fleet() -> list[str]:
    """Return the names under which the peers are found, to be many endpoints."""
    return [f"peers-{number}" for number in range(HOSTS)]


def inside(*command: str) -> list[str]:
    mount = f"--volume={FOLDER}:/certificates:ro"
    program = ("python3", "/bench/probes_inside.py", *command)
    return BENCH.inside(WORKER, *program, options=("--rm", mount)).splitlines()


# --- The three ----------------------------------------------------------------------------------


def ours(plan: Plan) -> Cost:
    """Measure from the tick to the last row."""
    before = _cpu_of_worker()
    seconds = json.loads(inside("tick", str(len(plan.names)))[-1])
    memory = int(_cgroup("memory.peak", "memory/memory.max_usage_in_bytes"))
    return Cost(seconds, _cpu_of_worker() - before, memory / 1024**2)


def _cgroup(new: str, old: str) -> str:
    """Return a figure of the worker's container in cgroup version 2, or in version 1."""
    code = f"cat /sys/fs/cgroup/{new} 2>/dev/null || cat /sys/fs/cgroup/{old}"
    return STACK.exec(WORKER, "sh", "-c", code)


def _cpu_of_worker() -> float:
    told = _cgroup("cpu.stat", "cpuacct/cpuacct.usage").split()
    if "usage_usec" in told:
        return int(told[told.index("usage_usec") + 1]) / 1e6
    return int(told[0]) / 1e9


def nmap(address: str, plan: Plan) -> tuple[Cost, dict[int, str]]:
    """Have nmap fetch every certificate; return the ports that presented one with its end."""
    ports = f"{min(plan.names)}-{max(plan.names)}"
    # Without a limit it tries on a silent port whatever it knows, for minutes; what it has not
    # fetched by then is lost.
    command = (
        *("nmap", "-Pn", "-n", "-T5", "--script", "+ssl-cert"),
        *(f"--script-timeout={NMAP_PATIENCE}s", "-p", ports, address),
    )
    cost, told = _measured(lambda: run(*command))
    found, port = {}, 0
    for line in told.splitlines():
        if "/tcp" in line:
            port = int(line.partition("/")[0])
        elif "Not valid after:" in line:
            found[port] = line.rpartition(" ")[2]
    return cost, found


def openssl(address: str, plan: Plan) -> tuple[Cost, dict[int, int]]:
    """Have openssl verify every chain, some at a time; return the verify codes by the ports."""
    one = (
        f"timeout {PATIENCE} openssl s_client -connect {address}:$1 -servername $2 "
        f"-verify_hostname $2 -CAfile {FOLDER}/root.crt </dev/null 2>/dev/null "
        '| sed -n "s/^ *Verify return code: \\([0-9]*\\).*/$1 \\1/p" | tail -n 1'
    )
    lines = "".join(f"{port} {name}\n" for port, name in plan.names.items())
    cost, told = _measured(
        lambda: run("xargs", "-P", str(SHELLS), "-L", "1", "sh", "-c", one, "sh", stdin=lines)
    )
    return cost, {
        int(port): int(code) for port, code in (line.split() for line in told.splitlines())
    }


def _measured(command: Callable[[], str]) -> tuple[Cost, str]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    told = command()
    seconds = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(seconds, cpu), told


# --- What is compared ---------------------------------------------------------------------------

CODES = {
    0: "valid", 10: "expired", 18: "self_signed", 62: "name_mismatch",
    20: "missing_intermediate", 21: "missing_intermediate",
}  # fmt: skip
"""openssl's verify codes in our words; ours tells a missing intermediate from a stranger."""


def agreement(codes: dict[int, int], plan: Plan) -> float:
    """Return the share of the ports that answer on which the verdicts agree."""
    found = {int(port): outcome for port, outcome in json.loads(inside("verdicts")[-1]).items()}
    answering = [port for port in plan.listening if port not in plan.hanging]
    differing = [p for p in answering if CODES.get(codes.get(p, -1)) != _alike(found[p])]
    for port in differing[:5]:
        say(f"port {port}: ours {found[port]}, openssl {codes.get(port)}")
    return 1 - len(differing) / len(answering)


def _alike(outcome: str) -> str:
    return "missing_intermediate" if outcome == "unknown_issuer" else outcome


def measure(name: str, plan: Plan) -> None:
    """Measure the three on one plan and print the figures."""
    write(plan)
    address = start_peers()
    inside("register", "/certificates", "peers")
    STACK.compose("up", "--detach", "--wait", "--no-deps", "--force-recreate", WORKER)
    rounds = [ours(plan) for _ in range(ROUNDS)]
    mine = sorted(rounds, key=lambda cost: cost.seconds)[len(rounds) // 2]
    say(f"{name}: ours {[round(cost.seconds, 2) for cost in rounds]} s, the first with new rows")
    scans = [nmap(address, plan) for _ in range(ROUNDS)]
    theirs = sorted((cost for cost, _ in scans), key=lambda cost: cost.seconds)[len(scans) // 2]
    fetched = scans[-1][1]
    say(f"{name}: nmap {[round(cost.seconds, 2) for cost, _ in scans]} s, {len(fetched)} fetched")
    loop, codes = openssl(address, plan)
    say(f"{name}: openssl {loop.seconds:.2f} s")
    print(f"figure probes_{name}_time_nmap_over_ours {theirs.seconds / mine.seconds:.2f} x")
    print(f"figure probes_{name}_time_openssl_over_ours {loop.seconds / mine.seconds:.2f} x")
    print(f"figure probes_{name}_cpu_openssl_over_ours {loop.cpu / mine.cpu:.2f} x")
    print(f"figure probes_{name}_cpu_nmap_over_ours {theirs.cpu / mine.cpu:.2f} x")
    presenting = len(plan.listening) - len(plan.hanging)
    print(f"figure probes_{name}_fetched_by_nmap {100 * len(fetched) / presenting:.1f} %")
    print(f"figure probes_{name}_agreement_openssl {100 * agreement(codes, plan):.1f} %")
    for who, cost in (("ours", mine), ("nmap", theirs), ("openssl", loop)):
        print(f"figure probes_{name}_time_{who} {cost.seconds:.2f} s")
        print(f"figure probes_{name}_cpu_{who} {cost.cpu:.2f} s")
    print(
        f"figure probes_{name}_memory_ours {statistics.mean(c.mebibytes for c in rounds):.0f} MiB"
    )


def measure_fleet() -> None:
    """Have everything fall due at once on the whole stack: do the others notice?"""
    write(healthy())
    start_peers()
    inside("register", "/certificates", *fleet())
    STACK.make("up")
    browser = STACK.browser()
    browser.sign_in(STACK.secret("migrate", "admin_password"))

    def look(path: str, seconds: float) -> list[float]:
        end = time.monotonic() + seconds
        return page_times(browser, path, lambda: time.monotonic() > end)

    count = HOSTS * ENDPOINTS
    before = look("/board/live/", 15)
    inside("due")
    pages = {"board": [], "certificates": []}
    waiting = []
    end = time.monotonic() + FLEET_SECONDS
    while time.monotonic() < end:
        pages["board"] += look("/board/live/", 4)
        pages["certificates"] += look("/certificates/", 4)
        waiting.append(STACK.queues()["ssl_certs"]["messages"])
    told = json.loads(inside("fleet")[-1])
    say(f"fleet: {told['scanned']} of {count} scanned in {FLEET_SECONDS} s")
    worse = p95(pages["board"]) / p95(before)
    print(f"figure probes_fleet_board_p95_busy_over_quiet {worse:.2f} x")
    for name, times in {"board_quiet": before, **pages}.items():
        print(f"figure probes_fleet_{name}_p95 {p95(times):.0f} ms")
    print(f"figure probes_fleet_messages_at_most {max(waiting)} messages")
    print(f"figure probes_fleet_beat_lag_at_most {told['lag']:.3f} s")
    print(f"figure probes_fleet_scanned {told['scanned'] / FLEET_SECONDS:.1f} endpoints/s")


def main() -> None:
    if absent := [tool for tool in TOOLS if shutil.which(tool) is None]:
        sys.exit(f"!! this benchmark compares with {' and '.join(absent)}: install them")
    with BENCH.site(lambda: run("docker", "rm", "--force", PEERS, check=False)):
        measure("healthy", healthy())
        measure("mixed", mixed())
        measure_fleet()


if __name__ == "__main__":
    main()
