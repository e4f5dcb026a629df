"""What stands in front of Flower's own pages, on a real server of Tornado's."""

from __future__ import annotations

import asyncio
import base64
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from flower import urls
from flower.app import Flower
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets
from tornado.options import options

from soc import flower
from soc.provision import environment
from soc.runtime.celery import app

PASSWORD = "kept by nobody else 123456789"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Flower's pages with what we put in front of them, and no broker behind."""
    flower.guard()
    options.basic_auth = [f"admin:{PASSWORD}"]
    options.read_only = True
    addresses: list[tuple[IOLoop, str]] = []
    ready = threading.Event()

    def serve() -> None:
        asyncio.set_event_loop(asyncio.new_event_loop())
        loop = IOLoop.current()
        site = Flower(capp=app, options=options, io_loop=loop, events=object(), **urls.settings)
        (socket,) = bind_sockets(0, "127.0.0.1")
        HTTPServer(site).add_sockets([socket])
        addresses.append((loop, f"http://127.0.0.1:{socket.getsockname()[1]}"))
        ready.set()
        loop.start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert ready.wait(30)
    loop, address = addresses[0]
    yield address
    loop.add_callback(loop.stop)
    thread.join(10)


@pytest.fixture(autouse=True)
def forgiven() -> None:
    """Every test begins with an address that has guessed nothing."""
    flower._limiter.storage.reset()


def get(url: str, path: str, password: str | None = PASSWORD, **options: Any) -> requests.Response:
    login = {"auth": ("admin", password)} if password is not None else {}
    session = requests.Session()
    session.trust_env = False
    return session.get(f"{url}{path}", timeout=20, **login, **options)


@pytest.mark.parametrize(
    "path", ["/", "/tasks", "/broker", "/metrics", "/api/workers", "/api/tasks", "/task/x"]
)
def test_every_page_asks_for_the_password(url: str, path: str) -> None:
    assert get(url, path, None).status_code == 401
    assert get(url, path, "guest").status_code == 401


def test_the_health_check_says_that_it_is_well_and_no_more(url: str) -> None:
    answer = get(url, "/healthcheck", None)
    assert (answer.status_code, answer.text) == (200, "OK")


def test_ten_wrong_passwords_close_it_for_the_address(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert [get(url, "/metrics", f"{n}").status_code for n in range(10)] == [401] * 10
    assert caplog.text.count("Wrong password for Flower from 127.0.0.1") == 10
    for password in ("11", PASSWORD):
        answer = get(url, "/metrics", password)
        assert answer.status_code == 429
        assert 0 < int(answer.headers["Retry-After"]) <= 300
    assert get(url, "/healthcheck", None).status_code == 200


def test_a_browser_that_asks_without_a_password_has_not_guessed(url: str) -> None:
    for _ in range(12):
        assert get(url, "/metrics", None).status_code == 401
    assert get(url, "/metrics").status_code == 200


@pytest.mark.parametrize("login", ["Basic x", "Basic", "Bearer x", "Basic \xff"])
def test_what_is_no_password_opens_nothing(url: str, login: str) -> None:
    assert get(url, "/metrics", None, headers={"Authorization": login}).status_code == 401


@pytest.mark.parametrize("path", ["/", "/nowhere", "/metrics", "/healthcheck", "/static/x.js"])
def test_every_answer_has_its_headers(url: str, path: str) -> None:
    answer = get(url, path)
    policy = answer.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy
    assert "'unsafe-inline'" not in re.search(r"script-src [^;]*", policy)[0]
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Strict-Transport-Security"].startswith("max-age=")
    assert "Tornado" not in answer.headers["Server"]
    if not path.startswith("/static/"):
        assert "no-store" in answer.headers["Cache-Control"]


def test_the_only_inline_script_has_the_nonce_of_its_answer(url: str) -> None:
    nonces = set()
    for _ in range(2):
        answer = get(url, "/nowhere")
        assert "<script>" not in answer.text
        nonces.add(re.search(r"'nonce-([^']+)'", answer.headers["Content-Security-Policy"])[1])
    assert len(nonces) == 2
    inline = flower._templates().load("workers.html").code
    assert "nonce=" in inline
    assert 'type="text/javascript"' not in inline


@pytest.mark.parametrize(
    "path",
    [
        *("/api/worker/shutdown/x", "/api/worker/pool/restart/x", "/api/worker/pool/grow/x"),
        *("/api/worker/queue/add-consumer/x", "/api/worker/queue/cancel-consumer/x"),
        *("/api/task/revoke/x", "/api/task/rate-limit/x", "/api/task/timeout/x"),
        *("/api/task/abort/x", "/api/task/apply/x", "/api/task/async-apply/x"),
        "/api/task/send-task/x",
    ],
)
def test_it_shows_and_does_nothing(url: str, path: str) -> None:
    session = requests.Session()
    session.trust_env = False
    answer = session.post(f"{url}{path}", auth=("admin", PASSWORD), timeout=20)
    assert answer.status_code == 403, answer.text


@pytest.mark.parametrize(
    "password", ["", "admin", "password", "flower", "x" * 50, "Admin0123456789abcdefghij"]
)
def test_it_does_not_start_with_a_password_that_could_be_guessed(
    monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    monkeypatch.setattr(flower, "secret", lambda _: password)
    with pytest.raises(environment.EnvironmentProblem, match="could be guessed"):
        flower.main()


@pytest.mark.parametrize(("control", "read_only"), [(False, True), (True, False)])
def test_a_site_says_whether_it_may_do_more(
    monkeypatch: pytest.MonkeyPatch, settings: Any, control: bool, read_only: bool
) -> None:
    started: list[list[str]] = []
    settings.FLOWER_CONTROL = control
    monkeypatch.setattr(flower, "secret", lambda _: base64.b32encode(PASSWORD.encode()).decode())
    monkeypatch.setattr(flower.app, "start", started.append)
    monkeypatch.setenv("FLOWER_BASIC_AUTH", "")
    monkeypatch.setattr(flower, "_forget_earlier_receivers", lambda: None)
    loads = flower.app.loader.import_default_modules
    monkeypatch.setattr(flower.app.loader, "import_default_modules", loads)
    flower.main()
    assert ("--read_only" in started[0]) is read_only
    # What may send no task loads none.
    assert (flower.app.loader.import_default_modules is loads) is not read_only
