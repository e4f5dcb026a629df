"""The embedded stack, started by `make up` from a fresh copy of the working tree."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import tzdata

from harness import Site, copy_tree, free_port, missing, run, wait_for, wait_until_equal
from soc.provision import environment
from soc.runtime.queues import QUEUES

WORKERS = {queue.service for queue in QUEUES}
PROGRAMS = {"web", "beat", "flower", "catcher", *WORKERS}
FIRST_MAIL = 120
"""Seconds from the start within which a new site has scanned itself and mailed about it."""


@dataclass
class Embedded(Site):
    """A site without containers."""

    smtp_port: int = field(default_factory=free_port)

    kind = "embedded"

    @property
    def ports(self) -> set[int]:
        return {self.web_port, self.flower_port, self.smtp_port}

    @property
    def state(self) -> Path:
        return self.folder / "var" / self.site

    def create(self, **values: str) -> None:
        super().create(SOC_SMTP_HOST="localhost", SOC_SMTP_PORT=str(self.smtp_port), **values)

    def query(self, sql: str) -> list[tuple[object, ...]]:
        database = sqlite3.connect(f"file:{self.state}/soc.sqlite3?mode=ro", uri=True)
        try:
            return database.execute(sql).fetchall()
        finally:
            database.close()

    def python(self, code: str) -> str:
        """Run Python code as the site's web service and return what it prints."""
        site, _ = environment.parse(self.env_file.read_text())
        done = subprocess.run(
            [self.folder / "var/venv/bin/python", "-c", "import django; django.setup()\n" + code],
            env={
                **site,
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(self.folder / "app"),
                "DJANGO_SETTINGS_MODULE": "soc.settings",
                "TMPDIR": str(self.state / "tmp"),
                "SOC_SERVICE": "web",
                "SOC_IDENTITY": str(self.folder / "env" / self.site / "web"),
                "SOC_STATE": str(self.state),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def processes(self) -> set[int]:
        """Return the processes whose command or working folder is in the copy."""
        mine = set()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes().decode(errors="replace")
                folder = str((process / "cwd").readlink())
            except OSError:
                continue
            if str(self.folder) in command or folder.startswith(str(self.folder)):
                mine.add(int(process.name))
        return mine


def listeners(processes: set[int]) -> set[tuple[str, int]]:
    """Return the addresses, in the kernel's hexadecimal, and ports on which processes listen."""
    sockets = set()
    for process in processes:
        for descriptor in Path(f"/proc/{process}/fd").glob("*"):
            try:
                sockets.add(str(descriptor.readlink()))
            except OSError:
                continue
    listening = "0A"
    found = set()
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
            local, state, inode = (row.split()[column] for column in (1, 3, 9))
            if state == listening and f"socket:[{inode}]" in sockets:
                address, port = local.split(":")
                found.add((address, int(port, 16)))
    return found


@pytest.fixture(scope="module")
def look(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """A running site in a folder of awkward length."""
    folder = tmp_path_factory.mktemp("embedded") / ("deep" * 20)
    site = Embedded(copy_tree(folder), "look")
    site.create()
    try:
        first = site.make("up").splitlines()[0]
        assert "loopback only" in first
        assert "for a look and for development" in first
        yield site
    finally:
        site.make("down", check=False)
        for process in site.processes():
            os.kill(process, signal.SIGKILL)


@pytest.fixture(scope="module")
def other(look: Embedded) -> Embedded:
    """A second site beside the first, which is not started."""
    other = Embedded(look.folder, "other")
    other.create()
    return other


def running(look: Embedded) -> set[str]:
    return set(re.findall(r"^(\S+) +RUNNING", look.make("status"), flags=re.MULTILINE))


def test_every_program_runs(look: Embedded) -> None:
    assert running(look) == PROGRAMS
    assert f"{look.url}/" in look.make("status")


def test_signing_in_over_https(look: Embedded) -> None:
    browser = look.browser()
    assert browser.open("/")[1].startswith(f"{look.url}/sign-in/")
    password = look.secret("migrate", "admin_password")
    assert browser.sign_in(password)[:2] == (200, f"{look.url}/")
    assert all(cookie.secure for cookie in browser.cookies)
    assert password in look.make("passwords")
    assert f"tzdata {tzdata.IANA_VERSION}" in browser.open("/")[2]


@pytest.mark.parametrize("path", ["/", "/metrics", "/api/workers"])
def test_flower_asks_for_its_password(look: Embedded, path: str) -> None:
    assert look.flower(path, user="")[0] == 401
    assert look.flower(path, user="guest")[0] == 401
    assert look.flower(path)[0] == 200


def test_flower_shows_the_workers(look: Embedded) -> None:
    def names() -> set[str]:
        return {
            name.partition("@")[0] for name in json.loads(look.flower("/api/workers?refresh=1")[1])
        }

    wait_until_equal("every worker", names, {queue.name for queue in QUEUES}, 30)


def test_everything_listens_on_loopback_only(look: Embedded) -> None:
    found = listeners(look.processes())
    assert {port for _, port in found} == look.ports
    assert {address for address, _ in found} == {"0100007F"}


def test_beat_and_workers_show_that_they_live(look: Embedded) -> None:
    def alive() -> set[str]:
        return {service for (service,) in look.query("SELECT service FROM core_heartbeat")}

    wait_until_equal("every heartbeat", alive, {"beat", *WORKERS}, 30)


def test_beat_dispatches_and_the_queues_are_sampled(look: Embedded) -> None:
    def consumed() -> set[str]:
        sql = "SELECT queue FROM core_queuesample WHERE consumers = 1"
        return {queue for (queue,) in look.query(sql)}

    wait_until_equal("every sample", consumed, {queue.name for queue in QUEUES}, 60)
    assert look.query("SELECT task, error FROM core_taskfailure") == []


def test_the_first_scan_and_its_mail(look: Embedded) -> None:
    wait_for("the first mail", lambda: "expires" in look.make("mail"), FIRST_MAIL)
    assert dict(look.query("SELECT port, status FROM ssl_certs_endpoint")) == {
        look.web_port: "ok",
        look.flower_port: "ok",
        look.smtp_port: "warning",
    }
    mail = look.make("mail")
    assert "X-Envelope-To: operations@health.internal" in mail
    assert f"localhost:{look.smtp_port}" in mail


def test_every_task_runs_once_and_an_expired_one_never(look: Embedded) -> None:
    printed = look.python("""
import datetime, time
from soc.ssl_certs.models import Endpoint
from soc.ssl_certs.tasks import scan_endpoint
scans = lambda: Endpoint.objects.earliest("pk").scans
endpoint = Endpoint.objects.earliest("pk")
Endpoint.objects.update(next_scan_at=datetime.datetime.now(datetime.UTC) + datetime.timedelta(1))
before = scans()
past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=5)
for _ in range(40):
    scan_endpoint.apply_async((endpoint.pk,))
    scan_endpoint.apply_async((endpoint.pk,), expires=past)
for _ in range(20):
    time.sleep(1)
    if scans() - before >= 40:
        break
time.sleep(3)
print(scans() - before)
""")
    assert printed == "40"


def test_workers_answer_remote_control(look: Embedded) -> None:
    code = "from soc.runtime.celery import app; print(len(app.control.ping(timeout=4)))"
    assert look.python(code) == str(len(WORKERS))


def test_a_second_start_harms_nothing(look: Embedded) -> None:
    pids = re.compile(r"pid \d+")
    before = pids.findall(look.make("status"))
    assert "runs already" in look.make("up")
    assert pids.findall(look.make("status")) == before


def refusal(site: Embedded, **values: str) -> str:
    """Change variables of a site that does not run, and return why it is not started."""
    good = site.env_file.read_text()
    site.set(**values)
    try:
        answer = site.make("up", check=False)
    finally:
        site.env_file.write_text(good)
    assert "Error" in answer
    return answer


def test_a_taken_port_is_refused_by_its_variable(look: Embedded, other: Embedded) -> None:
    answer = refusal(other, SOC_WEB_PORT=str(look.web_port))
    assert f"SOC_WEB_PORT={look.web_port} cannot be used" in answer
    assert "env/other.env" in answer


def test_an_address_of_the_network_is_refused(other: Embedded) -> None:
    assert "SOC_BIND is 0.0.0.0" in refusal(other, SOC_BIND="0.0.0.0")


def test_an_env_file_that_others_may_read_is_refused(other: Embedded) -> None:
    other.env_file.chmod(0o644)
    answer = refusal(other)
    other.env_file.chmod(0o600)
    assert "chmod 600" in answer


def test_an_unknown_variable_is_refused(other: Embedded) -> None:
    good = other.env_file.read_text()
    other.env_file.write_text(good + "SOC_WEB_PROT=1\n")
    answer = refusal(other)
    other.env_file.write_text(good)
    assert "SOC_WEB_PROT is unknown; is SOC_WEB_PORT meant?" in answer


def test_a_misspelt_site_does_not_come_into_being(look: Embedded) -> None:
    misspelt = Embedded(look.folder, "lok")
    assert "make site SITE=lok" in misspelt.make("up", check=False)
    assert not misspelt.env_file.exists()


@pytest.mark.drill
def test_two_sites_run_side_by_side(look: Embedded, other: Embedded) -> None:
    before = look.processes()
    other.make("up")
    for site in (look, other):
        assert site.browser().open("/healthz")[0] == 200
    other.make("mail")
    other.make("down")
    assert look.processes() == before


def test_a_program_that_fails_is_named_with_its_log(look: Embedded, other: Embedded) -> None:
    before = look.processes()
    flower = other.folder / "app" / "soc" / "flower.py"
    code = flower.read_text()
    flower.write_text("raise SystemExit('broken on purpose')")
    answer = other.make("up", check=False)
    flower.write_text(code)
    assert "flower does not work (FATAL" in answer
    assert "broken on purpose" in answer
    assert look.processes() == before


def test_a_newcomer_names_no_site(look: Embedded) -> None:
    """The site `local` comes into being by itself; its catcher's port is fixed."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 2525)) == 0:
            missing("port 2525 is taken, perhaps by a site local")
    local = Embedded(look.folder, "local", smtp_port=2525)
    before = look.processes()
    link = look.folder / ".env"
    link.unlink()
    example = look.folder / "env" / "example.env"
    example.write_text(
        example.read_text()
        .replace("SOC_WEB_PORT=8443", f"SOC_WEB_PORT={local.web_port}")
        .replace("SOC_FLOWER_PORT=5555", f"SOC_FLOWER_PORT={local.flower_port}")
    )
    first, *_ = run("make", "up", "STACK=embedded", cwd=look.folder).splitlines()
    try:
        assert first.startswith("== STACK=embedded: the site local runs on SQLite")
        assert link.readlink() == Path("env/local.env")
        assert f"{local.url}/" in run("make", "status", "STACK=embedded", cwd=look.folder)
        password = local.secret("migrate", "admin_password")
        assert password in run("make", "passwords", "STACK=embedded", cwd=look.folder)
        assert local.browser().sign_in(password)[:2] == (200, f"{local.url}/")
    finally:
        run("make", "down", "STACK=embedded", cwd=look.folder)
    assert look.processes() == before


@pytest.mark.drill
def test_a_rotation_replaces_every_secret_and_starts_every_program_again(look: Embedded) -> None:
    secrets = look.folder / "env" / look.site
    replaced = [secrets / name for name in ("ca/ca.pem", "web/cert.pem", "flower/password")]
    before = [path.read_bytes() for path in replaced]
    look.make("rotate")
    assert all(path.read_bytes() != old for path, old in zip(replaced, before, strict=True))
    assert running(look) == PROGRAMS
    assert look.flower("/")[0] == 200


def test_stopping_leaves_nothing_behind(look: Embedded) -> None:
    """The last test: what it stops was used by all others."""
    look.make("down")
    assert look.processes() == set()
    for port in look.ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
    assert "killing" not in (look.state / "logs" / "supervisord.log").read_text()
