"""Five hundred scans in a row of real servers: what their logs and counters show, and no block."""

from __future__ import annotations

import os
import re
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import pki
from harness import build_servers, has_image, new_name, run, wait_for, wait_until_equal
from soc.ssl_certs import probe
from soc.ssl_certs.probe import Presented
from soc.ssl_certs.targets import Outcome, StartTls, Target

HERE = Path(__file__).parent / "leftovers"
BASES = ("debian:trixie", "soc-offline/debian:trixie")
NAME = "servers.internal"
SCANS = 500
MYSQL = Target("", 3306, NAME, StartTls.MYSQL)
# MariaDB's max_connect_errors.
MOST_ERRORS = 100
ENDED = {"06", "0A"}
"""TIME_WAIT and LISTEN in proc_net_tcp(5)."""

pytestmark = pytest.mark.drill


@dataclass(frozen=True)
class Server:
    """What is scanned of a server, and what of its logs and counters may come of one scan each."""

    endpoints: Mapping[int, StartTls]
    logs: tuple[str, ...]
    # A pattern of log lines and how many a scan of all endpoints adds; counters likewise, each with
    # the command that prints it.
    lines: Mapping[str, int] = field(default_factory=dict)
    counters: Mapping[str, tuple[str, int]] = field(default_factory=dict)


def _status(variable: str) -> str:
    return f"mariadb --disable-ssl -N -e \"SHOW GLOBAL STATUS LIKE '{variable}'\" | cut -f2"


def _sessions(column: str) -> str:
    return f"su postgres -c \"psql -Atc 'SELECT sum({column}) FROM pg_stat_database'\""


SERVERS = {
    "MariaDB": Server(
        {3306: StartTls.MYSQL},
        ("mariadb.err",),
        {"Access denied for user 'soc-certificate-probe'": 1, "Aborted connection": 0},
        {
            "Aborted_connects": (_status("Aborted_connects"), 1),
            "Aborted_clients": (_status("Aborted_clients"), 0),
        },
    ),
    "PostgreSQL": Server(
        {5432: StartTls.POSTGRESQL},
        ("postgresql",),
        counters={
            "sessions_abandoned": (_sessions("sessions_abandoned"), 0),
            "sessions_fatal": (_sessions("sessions_fatal"), 0),
        },
    ),
    "Postfix": Server(
        {25: StartTls.SMTP},
        ("postfix",),
        {": connect from": 1, "disconnect from .* quit=1": 1, "lost connection": 0},
    ),
    "Dovecot": Server(
        {143: StartTls.IMAP, 110: StartTls.POP3},
        ("dovecot",),
        {r"Logged out \(no auth attempts": 2, "Connection closed|disconnected": 0},
        {"addresses with a penalty": ("doveadm penalty | tail -n +2 | wc -l", 0)},
    ),
    "slapd": Server(
        {389: StartTls.LDAP, 636: StartTls.NONE},
        ("slapd",),
        {"ACCEPT from": 2, " UNBIND": 1, r"closed \(connection lost\)": 1},
    ),
    "RabbitMQ": Server(
        {5671: StartTls.NONE},
        ("rabbitmq",),
        counters={"connections": ("rabbitmqctl -q list_connections pid | wc -l", 0)},
    ),
    "Prosody": Server(
        {5222: StartTls.XMPP, 5269: StartTls.XMPP_SERVER},
        ("prosody",),
        {"Client connected": 1, "Client disconnected": 1},
    ),
    "vsftpd": Server({21: StartTls.FTP}, ("vsftpd",), {"CONNECT: Client": 1}),
    "nginx": Server({8443: StartTls.NONE}, ("nginx-access", "nginx-error")),
    "Apache": Server({9443: StartTls.NONE}, ("apache2-access", "apache2-error")),
}


@dataclass(frozen=True)
class Container:
    """Where all the servers run."""

    name: str
    address: str

    def shell(self, command: str) -> str:
        return run("docker", "exec", self.name, "sh", "-c", command)

    def targets(self) -> dict[tuple[str, int], Target]:
        return {
            (name, port): Target(self.address, port, NAME, starttls)
            for name, server in SERVERS.items()
            for port, starttls in server.endpoints.items()
        }

    def log(self, server: Server) -> list[str]:
        return self.shell(f"cd /logs && cat {' '.join(server.logs)}").splitlines()

    def count(self, server: Server) -> dict[str, int]:
        return {
            counter: int(self.shell(command)) for counter, (command, _) in server.counters.items()
        }

    def sockets(self) -> Counter[int]:
        """Return how many connections each port has that are not over."""
        lines = self.shell("tail -qn +2 /proc/net/tcp /proc/net/tcp6").splitlines()
        states = [line.split()[1:4] for line in lines]
        return Counter(int(local.rsplit(":")[-1], 16) for local, _, state in states
                       if state not in ENDED)  # fmt: skip


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """A container with every server, each of which has presented its certificate."""
    base = os.environ.get("DEBIAN_IMAGE") or next(filter(has_image, BASES), BASES[0])
    image = build_servers(HERE, base)
    identity = tmp_path_factory.mktemp("identity")
    root = pki.issue("Leftovers Root", ca=True)
    pki.write_server_files(identity, pki.issue(NAME, root, san=[NAME]))
    identity.chmod(0o755)
    name = f"soc-{new_name()}-leftovers"
    gateway = run(
        "docker", "network", "inspect", "--format={{(index .IPAM.Config 0).Gateway}}", "bridge"
    ).strip()
    # Without a name for the scanning address each server would wait for a resolver first.
    run(
        "docker", "run", "--detach", f"--name={name}", f"--hostname={NAME}", "--init",
        f"--add-host=worker.internal:{gateway}", f"--volume={identity}:/identity:ro", image,
    )  # fmt: skip
    try:
        told = run("docker", "inspect", "--format={{.NetworkSettings.IPAddress}}", name)
        container = Container(name, told.strip())
        wait_until_equal("the servers", lambda: failures(container), {}, 120)
        yield container
    finally:
        run("docker", "rm", "--force", "--volumes", name)


def failures(container: Container) -> dict[tuple[str, int], probe.ProbeError]:
    """Scan every endpoint once, and return what brought no certificate."""
    results = dict(probe.collect_many(container.targets()))
    return {key: found for key, found in results.items() if not isinstance(found, Presented)}


def kinds(lines: list[str]) -> list[tuple[str, int]]:
    """Count the lines that differ in times, numbers and addresses only."""
    alike = (re.sub(r"[0-9a-f]*\d[0-9a-f.:]*", "#", line) for line in lines)
    return Counter(alike).most_common(8)


def test_no_server_minds_five_hundred_scans(
    servers: Container, capsys: pytest.CaptureFixture[str]
) -> None:
    logged = {name: len(servers.log(server)) for name, server in SERVERS.items()}
    counted = {name: servers.count(server) for name, server in SERVERS.items()}
    failed = Counter[str]()
    for _ in range(SCANS):
        failed.update(f"{key}: {error}" for key, error in failures(servers).items())
    watched = {port for _, port in servers.targets()}
    wait_for("the end of every connection", lambda: not watched & set(servers.sockets()))

    rows, wrong = [], [f"{count} times {text}" for text, count in failed.items()]
    details = []
    for name, server in SERVERS.items():
        lines = servers.log(server)[logged[name] :]
        found = {
            pattern: (sum(bool(re.search(pattern, line)) for line in lines), times * SCANS)
            for pattern, times in server.lines.items()
        }
        for counter, value in servers.count(server).items():
            added = value - counted[name][counter]
            found[counter] = (added, server.counters[counter][1] * SCANS)
        if not server.lines:
            found["lines"] = (len(lines), 0)
        told = ", ".join(f"{what}: {count}" for what, (count, _) in found.items())
        rows.append(f"| {name} | {SCANS * len(server.endpoints)} | {len(lines)} | {told} |")
        wrong += [f"{name}: {what} {has} for {wants}" for what, (has, wants) in found.items()
                  if has != wants]  # fmt: skip
        details += [f"{count:5} {name}: {text[:150]}" for text, count in kinds(lines)]
    with capsys.disabled():
        print("\n| server | scans | lines logged | of them, and counters |\n|---|---|---|---|")
        print("\n".join(rows))
    assert not wrong, "\n".join([*wrong, *details])
    assert not failures(servers), "an address was blocked"


def test_a_block_would_be_seen(servers: Container) -> None:
    """MariaDB blocks the address of clients that leave before they log in."""
    for _ in range(MOST_ERRORS + 1):
        with socket.create_connection((servers.address, MYSQL.port), timeout=10) as client:
            client.recv(1024)
    error = failures(servers)["MariaDB", MYSQL.port]
    assert error.outcome is Outcome.STARTTLS_FAILED
    assert "is blocked because of many connection errors" in error.detail
    assert "FLUSH HOSTS" in error.detail
