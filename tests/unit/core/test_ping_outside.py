"""A monitor outside hears from the site while all is well, and nothing when something is not."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from soc.core import outside, readiness, storage

pytestmark = pytest.mark.django_db


@pytest.fixture
def asked(settings: Any) -> Iterator[list[str]]:
    """The paths that a monitor was asked for; its address has no TLS here."""
    paths: list[str] = []

    class Monitor(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Monitor)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings.PING_URL = f"http://127.0.0.1:{server.server_port}/ping/key"
    yield paths
    server.shutdown()
    server.server_close()


def test_the_monitor_is_asked_for_while_all_is_well(asked: list[str]) -> None:
    assert outside.ping()
    assert asked == ["/ping/key"]


@pytest.mark.parametrize("wrong", ["database", "storage"])
def test_the_monitor_hears_nothing_when_something_is_wrong(
    wrong: str, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if wrong == "storage":
        monkeypatch.setattr(storage, "free", lambda: storage.Free(0.01, 0.5))
    else:
        monkeypatch.setattr(readiness, "problem", lambda: "the database takes no rows")
    assert not outside.ping()
    assert asked == []


def test_a_monitor_that_is_away_fails_no_task(asked: list[str], settings: Any) -> None:
    settings.PING_URL = "http://127.0.0.1:9/"
    assert not outside.ping()
    settings.PING_URL = ""
    assert not outside.ping()
