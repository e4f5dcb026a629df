"""What all benchmarks share: a site of their own that is gone when they end."""

import os
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from harness import REPOSITORY, Browser, Stack, copy_tree, has_engine
from soc.provision import pki

TESTS = REPOSITORY / "tests"


def say(text: str) -> None:
    print(f"== {text}", flush=True)


def page_times(browser: Browser, path: str, until: Callable[[], object]) -> list[float]:
    """Open a page again and again, and return the milliseconds that it took each time."""
    times = []
    while not until():
        start = time.monotonic()
        status, _, _ = browser.open(path)
        assert status == 200
        times.append(1000 * (time.monotonic() - start))
        time.sleep(0.05)
    return times


def p95(times: list[float]) -> float:
    """Return the time that nineteen of twenty do not exceed."""
    return statistics.quantiles(times, n=20)[-1]


class Bench:
    """A benchmark: its folder, and a site with a database and a broker."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = REPOSITORY / "var" / f"bench-{name}"
        # No site's name may begin with another's and a hyphen: that is how what is left is found.
        self.stack = Stack(self.folder / "tree", f"bench-{name.replace('_', '')}")

    @contextmanager
    def site(
        self, clean_up: Callable[[], None] = lambda: None, *, whole: bool = False, **values: str
    ) -> Iterator[Stack]:
        """Start the site's servers, or the ``whole`` of it, with values of its env file.

        ``clean_up`` removes what is beside it.
        """
        if not has_engine():
            sys.exit(
                f"!! no Docker engine answers: start it and run `make bench BENCH={self.name}` "
                f"again; this benchmark needs the stack"
            )
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _stop)
        # What is made here is mounted into containers, whose user is another one.
        os.umask(0o022)
        # What an earlier run left when it was killed.
        self._remove(clean_up)
        self.folder.mkdir(mode=0o700, parents=True)
        try:
            say("creating a site with a broker and a database")
            copy_tree(self.stack.folder)
            self.stack.create()
            self.stack.set(**values)
            if whole:
                self.stack.make("up")
            else:
                self.stack.compose("up", "--detach", "--wait", "mariadb", "rabbitmq")
                self.stack.compose("run", "--rm", "migrate")
            yield self.stack
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            say("cleaning up")
            self._remove(clean_up)

    def inside(self, service: str, *command: str, options: tuple[str, ...] = ("--rm",)) -> str:
        """Run a command in a container as the product's service has it: limits, files, network."""
        return self.stack.compose(
            "run", *options, "--no-deps", f"--volume={TESTS / 'bench'}:/bench:ro",
            "--env=PYTHONPATH=/app", "--env=DJANGO_SETTINGS_MODULE=soc.settings",
            service, *command,
        )  # fmt: skip

    def add_a_stock_user(self, name: str) -> None:
        """Make a user of the broker who may do all, with a certificate for a server ``name``.

        Stock settings declare queues and exchanges, some that we have otherwise: no service of
        ours may, and they get a virtual host of their own.
        """
        for command in (
            ("add_vhost", "bench"),
            ("add_user", "bench", "unused-without-PLAIN"),
            ("set_permissions", "-p", "bench", "bench", ".*", ".*", ".*"),
        ):
            self.stack.exec("rabbitmq", "rabbitmqctl", "-q", *command)
        site = self.stack.folder / "env" / self.stack.site
        authority = pki.KeyPair.load(site / "ca" / "ca.pem", site / "ca" / "ca.key")
        identity = pki.issue(authority, "bench", [name])
        folder = self.folder / "identity"
        folder.mkdir()
        (folder / "ca.pem").write_bytes(authority.certificate_pem)
        (folder / "cert.pem").write_bytes(identity.certificate_pem)
        (folder / "key.pem").write_bytes(identity.key_pem)

    def _remove(self, clean_up: Callable[[], None]) -> None:
        clean_up()
        self.stack.remove()
        shutil.rmtree(self.folder, ignore_errors=True)


def _stop(*_: object) -> NoReturn:
    sys.exit("stopped")
