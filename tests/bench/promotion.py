"""Lose a primary database while it is written to: what was confirmed and is gone, and for how long.

make bench BENCH=promotion             five rounds, about four minutes
make bench BENCH=promotion ROUNDS=2

Three servers as MariaDB's documentation has them ("Semisynchronous Replication", "Global
Transaction ID"): a primary and two replicas, of which one has to have a transaction before the
client learns of it. Nothing else of the stack runs.
"""

from __future__ import annotations

import os
import secrets
import statistics
import subprocess
import threading
import time

from bench import say
from harness import has_image, new_name, run, wait_for

IMAGE = os.environ.get("MARIADB_IMAGE", "soc-offline/mariadb:11.8")
ROUNDS = int(os.environ.get("ROUNDS", "5"))
BEHIND_SECONDS = 1.0
"""For how long the replicas hear nothing before the primary dies."""

FOR_EVER_MS = 2**32 - 1
PASSWORD = secrets.token_hex(16)
NAME = new_name()
SERVERS = tuple(f"{NAME}-db{number}" for number in (1, 2, 3))


def start(*, semi_sync: bool) -> None:
    run("docker", "network", "create", NAME)
    for number, server in enumerate(SERVERS, start=1):
        run(
            "docker", "run", "--detach", "--name", server, f"--network={NAME}",
            f"--env=MARIADB_ROOT_PASSWORD={PASSWORD}", "--env=MARIADB_DATABASE=soc", IMAGE,
            "mariadbd", f"--server-id={number}", "--log-bin=binlog", "--log-slave-updates",
            "--gtid-strict-mode=ON", "--sync-binlog=1", f"--read-only={int(number > 1)}",
            # A replica that waits for replicas of its own applies nothing.
            f"--rpl-semi-sync-master-enabled={int(semi_sync and number == 1)}",
            "--rpl-semi-sync-slave-enabled=1",
            "--rpl-semi-sync-master-wait-point=AFTER_SYNC",
            f"--rpl-semi-sync-master-timeout={FOR_EVER_MS}",
        )  # fmt: skip
    for server in SERVERS:
        # The server that prepares the first start listens nowhere.
        wait_for(
            f"{server} listens",
            lambda s=server: sql(s, "SELECT @@skip_networking", check=False).strip() == "0",
        )
    primary, *replicas = SERVERS
    # Its own session writes nothing that would wait for replicas before there are any.
    sql(
        primary,
        f"SET sql_log_bin=0; CREATE USER replica@'%' IDENTIFIED BY '{PASSWORD}'; "
        "GRANT REPLICATION SLAVE ON *.* TO replica@'%';",
    )
    for replica in replicas:
        sql(
            replica,
            f"CHANGE MASTER TO MASTER_HOST='{primary}', MASTER_USER='replica', "
            f"MASTER_PASSWORD='{PASSWORD}', MASTER_SSL=0, MASTER_USE_GTID=slave_pos, "
            "MASTER_CONNECT_RETRY=1; START SLAVE;",
        )
        wait_for(f"{replica} follows", lambda r=replica: status(r, "Slave_IO_Running") == "Yes")
    sql(primary, "CREATE TABLE soc.effects (id INT PRIMARY KEY)")


def stop() -> None:
    run("docker", "rm", "--force", "--volumes", *SERVERS, check=False)
    run("docker", "network", "rm", NAME, check=False)


def client(server: str, *options: str) -> list[str]:
    return [
        "docker", "exec", "--interactive", f"--env=MYSQL_PWD={PASSWORD}", server, "mariadb",
        "--user=root", "--skip-ssl", "--unbuffered", *options,
    ]  # fmt: skip


def sql(server: str, statement: str, *, check: bool = True) -> str:
    return run(*client(server, "--skip-column-names"), stdin=statement, check=check)


def status(server: str, variable: str) -> str:
    rows = run(*client(server), stdin="SHOW SLAVE STATUS\\G", check=False).splitlines()
    pairs = (row.strip().partition(":")[::2] for row in rows)
    return dict(pairs).get(variable, "").strip()


class Writer:
    """Writes one row after the other, and knows which were confirmed."""

    def __init__(self, server: str, first: int) -> None:
        self.confirmed: list[int] = []
        self.first = first
        self._process = subprocess.Popen(
            client(server, "--skip-column-names"),
            text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, bufsize=1,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def _write(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        number = self.first
        try:
            while True:
                self._process.stdin.write(
                    f"INSERT INTO soc.effects VALUES ({number}); SELECT {number};\n"
                )
                if not self._process.stdout.readline():
                    return
                self.confirmed.append(number)
                number += 1
        except OSError:
            return

    def end(self) -> None:
        self._process.kill()
        self._thread.join(timeout=10)


def position(server: str) -> int:
    """Return the number of the last transaction that a replica has received."""
    return int(status(server, "Gtid_IO_Pos").rpartition("-")[2] or 0)


def promote() -> str:
    """Make a primary of the replica that has received most; return its name."""
    chosen = max(SERVERS[1:], key=position)
    received = status(chosen, "Gtid_IO_Pos")
    sql(chosen, f"STOP SLAVE IO_THREAD; SELECT MASTER_GTID_WAIT('{received}', 30);")
    sql(chosen, "STOP SLAVE; RESET SLAVE ALL; SET GLOBAL read_only=0;")
    return chosen


def lose_primary(*, semi_sync: bool) -> tuple[int, int, float]:
    """Return the number of confirmed rows, that of those that are gone, and seconds without."""
    try:
        start(semi_sync=semi_sync)
        writer = Writer(SERVERS[0], 1)
        time.sleep(2)
        for replica in SERVERS[1:]:
            run("docker", "network", "disconnect", NAME, replica)
        time.sleep(BEHIND_SECONDS)
        killed = time.monotonic()
        run("docker", "kill", "--signal=KILL", SERVERS[0])
        for replica in SERVERS[1:]:
            run("docker", "network", "connect", NAME, replica)
        writer.end()
        chosen = promote()
        sql(chosen, "INSERT INTO soc.effects VALUES (0)")
        away = time.monotonic() - killed
        there = {int(row) for row in sql(chosen, "SELECT id FROM soc.effects").split()}
        return len(writer.confirmed), len(set(writer.confirmed) - there), away
    finally:
        stop()


def isolate_primary() -> tuple[int, int]:
    """Return how many rows a primary confirms with one replica gone, and in 5 s with both gone."""
    try:
        start(semi_sync=True)
        writer = Writer(SERVERS[0], 1)
        time.sleep(1)
        run("docker", "kill", "--signal=KILL", SERVERS[1])
        time.sleep(1)
        before = len(writer.confirmed)
        time.sleep(2)
        with_one = len(writer.confirmed) - before
        run("docker", "network", "disconnect", NAME, SERVERS[2])
        # What was on its way when the network went.
        time.sleep(1)
        before = len(writer.confirmed)
        time.sleep(5)
        alone = len(writer.confirmed) - before
        writer.end()
        return with_one, alone
    finally:
        stop()


def main() -> None:
    if not has_image(IMAGE):
        raise SystemExit(f"!! there is no {IMAGE}: MARIADB_IMAGE=name says which to take")
    for kind, semi_sync in (("asynchronous", False), ("semisynchronous", True)):
        rounds = [lose_primary(semi_sync=semi_sync) for _ in range(ROUNDS)]
        confirmed, lost, away = zip(*rounds, strict=True)
        say(f"{kind}: {rounds}")
        print(f"figure promotion_{kind}_confirmed {sum(confirmed)} rows")
        print(f"figure promotion_{kind}_lost {sum(lost)} rows")
        print(f"figure promotion_{kind}_median {statistics.median(away):.1f} s")
        print(f"figure promotion_{kind}_worst {max(away):.1f} s")
    with_one, alone = isolate_primary()
    print(f"figure promotion_confirmed_with_one_replica {with_one} rows")
    print(f"figure promotion_confirmed_isolated {alone} rows")


if __name__ == "__main__":
    main()
