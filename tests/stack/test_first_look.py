"""What a newcomer does: `make up` in a fresh copy, with no site and no option named."""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import Stack, copy_tree, has_engine, missing, run, wait_for

FIRST_MAIL = 120
"""Seconds from the start within which a new site has scanned itself and mailed about it."""


@dataclass
class Local(Stack):
    """The site that `make up` makes by itself, driven without naming it."""

    def make(self, *arguments: str, check: bool = True) -> str:
        return run("make", *arguments, cwd=self.folder, check=check)

    def containers(self) -> list[str]:
        return run("docker", "ps", "--all", "--quiet", f"--filter={self.label}").split()

    def volumes(self) -> list[str]:
        return run("docker", "volume", "ls", "--quiet", f"--filter={self.label}").split()

    @property
    def label(self) -> str:
        return f"label=com.docker.compose.project={self.project}"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    if not has_engine():
        missing("no Docker engine answers")
    local = Local(tmp_path_factory.mktemp("look"), "local")
    # Its project's name is fixed: it may be a person's, whose data must survive the tests.
    if local.containers() or local.volumes():
        pytest.skip("this engine has a site local already")
    copy_tree(local.folder)
    example = local.folder / "env" / "example.env"
    example.write_text(
        example.read_text()
        .replace("SOC_WEB_PORT=8443", f"SOC_WEB_PORT={local.web_port}")
        .replace("SOC_FLOWER_PORT=5555", f"SOC_FLOWER_PORT={local.flower_port}")
    )
    try:
        yield local
    finally:
        local.remove()


@pytest.fixture(scope="module")
def started(local: Local) -> str:
    """What the first `make up` says."""
    return local.make("up")


def test_make_up_says_what_it_has_chosen_and_where_everything_is(
    local: Local, started: str
) -> None:
    first = started.splitlines()[0]
    assert first == "== a Docker engine answers: the site local runs in containers"
    assert f"== board  {local.url}/   user admin, password: `make passwords`" in started
    assert f"== Flower {local.flower_url}/   user admin, password: `make passwords`" in started
    assert "== mail   is caught here, not sent: `make mail`" in started
    assert (local.folder / ".env").readlink() == Path("env/local.env")


def test_the_first_warning_is_mailed_soon(local: Local, started: str) -> None:
    wait_for("the mail", lambda: "WARNING: catcher:2525" in local.make("mail"), FIRST_MAIL)


def test_make_status_names_what_is_wrong_and_nothing_else(local: Local, started: str) -> None:
    """Fresh sites have a warning on the board; one-off containers are no services."""
    run("docker", "stop", local.container("flower"))
    try:
        lines = local.make("status", check=False).splitlines()
    finally:
        run("docker", "start", local.container("flower"))
        wait_for("Flower", lambda: local.health("flower") == "healthy")
    services = [line for line in lines if re.match(r"!! [a-z-]+: ", line)]
    assert [line.split(" (")[0] for line in services] == ["!! flower: Exited"]
    assert "web" in local.services()


def test_the_site_is_changed_by_one_command_at_a_time(local: Local, started: str) -> None:
    with (local.folder / "var" / "local.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        said = local.make("certs", check=False)
    assert "another make command is changing the site local" in said


def test_the_passwords_open_both_pages(local: Local, started: str) -> None:
    shown = local.make("passwords")
    password = local.secret("migrate", "admin_password")
    assert password in shown
    assert local.browser().sign_in(password)[:2] == (200, f"{local.url}/")
    assert local.secret("flower", "password") in shown
    assert local.flower("/")[0] == 200


def test_make_down_leaves_the_data_and_nothing_else(local: Local, started: str) -> None:
    """The last test: what it stops was used by all others."""
    local.make("down")
    assert local.containers() == []
    assert set(local.volumes()) == {
        f"{local.project}_{name}" for name in ("mail", "mariadb", "rabbitmq")
    }
