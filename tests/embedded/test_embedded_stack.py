"""The embedded stack, started by `make up` from a fresh copy of the working tree."""

from __future__ import annotations

import http.cookiejar
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from soc.queues import QUEUES

REPOSITORY = Path(__file__).resolve().parents[2]
WORKERS = {queue.service for queue in QUEUES}
PROGRAMS = {"web", "beat", "flower", "catcher", *WORKERS}
FIRST_MAIL = 120
"""Seconds from the start within which a new site has scanned itself and mailed about it."""


@dataclass
class Stack:
    """One site of a copy of the working tree."""

    root: Path
    site: str
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def env_file(self) -> Path:
        return self.root / "env" / f"{self.site}.env"

    @property
    def folder(self) -> Path:
        return self.root / "env" / self.site

    @property
    def state(self) -> Path:
        return self.root / "var" / self.site

    def make(self, *targets: str) -> subprocess.CompletedProcess[str]:
        # Neither the site of the test process nor the options of a surrounding make.
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SOC_", "MAKE", "MFLAGS")) and name not in ("SITE", "PYTHON")
        }
        return subprocess.run(
            ["make", *targets, "STACK=embedded", f"SITE={self.site}"],
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def create(self) -> None:
        made = self.make("site")
        assert made.returncode == 0, made.stdout + made.stderr
        self.ports = {
            name: free_port() for name in ("SOC_WEB_PORT", "SOC_FLOWER_PORT", "SOC_SMTP_PORT")
        }
        self.change(
            COMPOSE_PROFILES="catcher",
            SOC_SMTP_HOST="localhost",
            SOC_MAIL_FROM="soc@soc.internal",
            SOC_MAIL_TO="operations@soc.internal",
            **{name: str(port) for name, port in self.ports.items()},
        )

    def change(self, **values: str) -> None:
        text = self.env_file.read_text(encoding="utf-8")
        for name, value in values.items():
            text = re.sub(rf"^{name}=.*$", f"{name}={value}", text, flags=re.MULTILINE)
        self.env_file.write_text(text, encoding="utf-8")

    def secret(self, name: str) -> str:
        return (self.folder / name).read_text(encoding="utf-8").strip()

    def opener(self, *handlers: urllib.request.BaseHandler) -> urllib.request.OpenerDirector:
        context = ssl.create_default_context(cafile=self.folder / "ca" / "ca.pem")
        return urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=context),
            *handlers,
        )

    def web(self, path: str) -> str:
        return f"https://localhost:{self.ports['SOC_WEB_PORT']}{path}"

    def flower(self, path: str, password: str = "") -> tuple[int, str]:
        request = urllib.request.Request(
            f"https://localhost:{self.ports['SOC_FLOWER_PORT']}{path}",
            headers={"Authorization": "Basic " + b64encode(f"admin:{password}".encode()).decode()},
        )
        try:
            with self.opener().open(request, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, ""

    def query(self, sql: str) -> list[tuple[object, ...]]:
        database = sqlite3.connect(f"file:{self.state}/soc.sqlite3?mode=ro", uri=True)
        try:
            return database.execute(sql).fetchall()
        finally:
            database.close()

    def run(self, code: str) -> str:
        """Run Python code as the site's web service and return what it prints."""
        lines = self.env_file.read_text(encoding="utf-8").splitlines()
        site = dict(line.split("=", 1) for line in lines if re.match(r"[A-Z_]+=.", line))
        done = subprocess.run(
            [self.root / "var/venv/bin/python", "-c", "import django; django.setup()\n" + code],
            env={
                **site,
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(self.root / "app"),
                "DJANGO_SETTINGS_MODULE": "soc.settings",
                "TMPDIR": str(self.state / "tmp"),
                "SOC_SERVICE": "web",
                "SOC_IDENTITY": str(self.folder / "web"),
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
            if str(self.root) in command or folder.startswith(str(self.root)):
                mine.add(int(process.name))
        return mine


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(1)


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
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the working tree as a clone would have it, in a folder of awkward length."""
    root = tmp_path_factory.mktemp("embedded") / ("deep" * 20)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (REPOSITORY / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, root / name)
    return root


@pytest.fixture(scope="module")
def stack(copy: Path) -> Iterator[Stack]:
    stack = Stack(copy, "look")
    stack.create()
    try:
        started = stack.make("up")
        assert started.returncode == 0, started.stdout + started.stderr
        first = started.stdout.splitlines()[0]
        assert "loopback only" in first
        assert "for a look and for development" in first
        yield stack
    finally:
        stack.make("down")
        for process in stack.processes():
            os.kill(process, signal.SIGKILL)


@pytest.fixture(scope="module")
def other(stack: Stack) -> Stack:
    """A second site beside the first, which is not started."""
    other = Stack(stack.root, "other")
    other.create()
    return other


def test_every_program_runs(stack: Stack) -> None:
    status = stack.make("status").stdout
    running = set(re.findall(r"^(\S+) +RUNNING", status, flags=re.MULTILINE))
    assert running == PROGRAMS
    assert stack.web("/") in status


def test_signing_in_over_https(stack: Stack) -> None:
    jar = http.cookiejar.CookieJar()
    opener = stack.opener(urllib.request.HTTPCookieProcessor(jar))
    with opener.open(stack.web("/"), timeout=20) as answer:
        assert urllib.parse.urlsplit(answer.url).path == "/sign-in/"
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', answer.read().decode())
    assert token is not None
    form = {
        "csrfmiddlewaretoken": token[1],
        "username": "admin",
        "password": stack.secret("migrate/admin_password"),
        "next": "/",
    }
    request = urllib.request.Request(
        stack.web("/sign-in/"),
        data=urllib.parse.urlencode(form).encode(),
        headers={"Referer": stack.web("/sign-in/")},
    )
    with opener.open(request, timeout=20) as answer:
        assert answer.status == 200
        assert urllib.parse.urlsplit(answer.url).path == "/"
    assert all(cookie.secure for cookie in jar)
    assert stack.secret("migrate/admin_password") in stack.make("passwords").stdout


@pytest.mark.parametrize("path", ["/", "/metrics", "/api/workers"])
def test_flower_asks_for_its_password(stack: Stack, path: str) -> None:
    assert stack.flower(path)[0] == 401
    assert stack.flower(path, "wrong")[0] == 401
    assert stack.flower(path, stack.secret("flower/password"))[0] == 200


def test_flower_shows_the_workers(stack: Stack) -> None:
    def names() -> set[str]:
        answer = stack.flower("/api/workers?refresh=1", stack.secret("flower/password"))[1]
        return {name.partition("@")[0] for name in json.loads(answer)}

    wait_for(lambda: names() == {queue.name for queue in QUEUES}, 30)


def test_everything_listens_on_loopback_only(stack: Stack) -> None:
    found = listeners(stack.processes())
    assert {port for _, port in found} == set(stack.ports.values())
    assert {address for address, _ in found} == {"0100007F"}


def test_beat_and_workers_show_that_they_live(stack: Stack) -> None:
    wait_for(
        lambda: (
            {row[0] for row in stack.query("SELECT service FROM core_heartbeat")}
            == {"beat", *WORKERS}
        ),
        30,
    )


def test_beat_dispatches_and_the_queues_are_sampled(stack: Stack) -> None:
    wait_for(
        lambda: (
            {
                row[0]
                for row in stack.query("SELECT queue FROM core_queuesample WHERE consumers = 1")
            }
            == {queue.name for queue in QUEUES}
        ),
        60,
    )
    assert stack.query("SELECT task, error FROM core_taskfailure") == []


def test_the_first_scan_and_its_mail(stack: Stack) -> None:
    wait_for(lambda: "expires" in stack.make("mail").stdout, FIRST_MAIL)
    endpoints = stack.query("SELECT port, status FROM ssl_certs_endpoint")
    assert dict(endpoints) == {
        stack.ports["SOC_WEB_PORT"]: "ok",
        stack.ports["SOC_FLOWER_PORT"]: "ok",
        stack.ports["SOC_SMTP_PORT"]: "warning",
    }
    mail = stack.make("mail").stdout
    assert "X-Envelope-To: operations@soc.internal" in mail
    assert f"localhost:{stack.ports['SOC_SMTP_PORT']}" in mail


def test_every_task_runs_once_and_an_expired_one_never(stack: Stack) -> None:
    printed = stack.run("""
import datetime, time
from soc.ssl_certs.models import Endpoint, Observation
from soc.ssl_certs.tasks import scan_endpoint
endpoint = Endpoint.objects.earliest("pk")
Endpoint.objects.update(next_scan_at=datetime.datetime.now(datetime.UTC) + datetime.timedelta(1))
before = Observation.objects.count()
past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=5)
for _ in range(40):
    scan_endpoint.apply_async((endpoint.pk,))
    scan_endpoint.apply_async((endpoint.pk,), expires=past)
for _ in range(20):
    time.sleep(1)
    if Observation.objects.count() - before >= 40:
        break
time.sleep(3)
print(Observation.objects.count() - before)
""")
    assert printed == "40"


def test_workers_answer_remote_control(stack: Stack) -> None:
    code = "from soc.celery import app; print(len(app.control.ping(timeout=4)))"
    assert stack.run(code) == str(len(WORKERS))


def test_a_second_start_harms_nothing(stack: Stack) -> None:
    before = stack.make("status").stdout
    again = stack.make("up")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "runs already" in again.stdout
    pids = re.compile(r"pid \d+")
    assert pids.findall(stack.make("status").stdout) == pids.findall(before)


def test_a_taken_port_is_refused_by_its_variable(stack: Stack, other: Stack) -> None:
    other.change(SOC_WEB_PORT=str(stack.ports["SOC_WEB_PORT"]))
    refused = other.make("up")
    other.change(SOC_WEB_PORT=str(other.ports["SOC_WEB_PORT"]))
    assert refused.returncode != 0
    assert f"SOC_WEB_PORT={stack.ports['SOC_WEB_PORT']} cannot be used" in refused.stderr
    assert "env/other.env" in refused.stderr


def test_an_env_file_that_others_may_read_is_refused(other: Stack) -> None:
    other.env_file.chmod(0o644)
    refused = other.make("up")
    other.env_file.chmod(0o600)
    assert refused.returncode != 0
    assert "chmod 600" in refused.stderr


def test_an_unknown_variable_is_refused(other: Stack) -> None:
    text = other.env_file.read_text(encoding="utf-8")
    other.env_file.write_text(text + "SOC_WEB_PROT=1\n", encoding="utf-8")
    refused = other.make("up")
    other.env_file.write_text(text, encoding="utf-8")
    assert refused.returncode != 0
    assert "SOC_WEB_PROT is unknown; is SOC_WEB_PORT meant?" in refused.stderr


def test_an_address_of_the_network_is_refused(other: Stack) -> None:
    other.change(SOC_BIND="0.0.0.0")
    refused = other.make("up")
    other.change(SOC_BIND="127.0.0.1")
    assert refused.returncode != 0
    assert "SOC_BIND is 0.0.0.0" in refused.stderr


def test_a_misspelt_site_does_not_come_into_being(stack: Stack) -> None:
    misspelt = Stack(stack.root, "lok")
    refused = misspelt.make("up")
    assert refused.returncode != 0
    assert "make site SITE=lok" in refused.stderr
    assert not misspelt.folder.exists()


def test_two_sites_run_side_by_side(stack: Stack, other: Stack) -> None:
    before = stack.processes()
    started = other.make("up")
    assert started.returncode == 0, started.stdout + started.stderr
    for site in (stack, other):
        with site.opener().open(site.web("/healthz"), timeout=20) as answer:
            assert answer.status == 200
    assert other.make("mail").returncode == 0
    assert other.make("down").returncode == 0
    assert stack.processes() == before


def test_a_program_that_fails_is_named_with_its_log(stack: Stack, other: Stack) -> None:
    before = stack.processes()
    flower = other.root / "app" / "soc" / "flower.py"
    code = flower.read_text(encoding="utf-8")
    flower.write_text("raise SystemExit('broken on purpose')", encoding="utf-8")
    failed = other.make("up")
    flower.write_text(code, encoding="utf-8")
    assert failed.returncode != 0
    assert "flower does not work (FATAL" in failed.stdout
    assert "broken on purpose" in failed.stdout
    assert stack.processes() == before


def test_stopping_leaves_nothing_behind(stack: Stack) -> None:
    """The last test: what it stops was used by all others."""
    stopped = stack.make("down")
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert stack.processes() == set()
    for port in stack.ports.values():
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
    log = (stack.state / "logs" / "supervisord.log").read_text(encoding="utf-8")
    assert "killing" not in log
