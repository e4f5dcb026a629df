"""Attacks on the web pages and on Flower: each is refused, leaves a line in the log, costs nothing.

What locks an address comes from inside a container: the address of the other tests stays free.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlencode

import pytest

from harness import Stack, run, wait_for

FLOWER, WEB = "flower", "web"


def connect(stack: Stack, service: str, **versions: ssl.TLSVersion) -> ssl.SSLSocket:
    """Open a verified connection; a version below 1.2 needs all that OpenSSL holds back."""
    port = stack.web_port if service == WEB else stack.flower_port
    authority = stack.folder / "env" / stack.site / "ca" / "ca.pem"
    context = ssl.create_default_context(cafile=authority)
    if versions:
        context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        for name, version in versions.items():
            setattr(context, name, version)
    plain = socket.create_connection(("localhost", port), timeout=20)
    return context.wrap_socket(plain, server_hostname="localhost")


def ask(stack: Stack, service: str, head: str, body: bytes = b"") -> tuple[int, str]:
    """Send a request as it stands; return the status and all of the answer."""
    with connect(stack, service) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    text = answer.decode(errors="replace")
    return int(text.split(" ", 2)[1]), text


def get(path: str, *headers: str, host: str = "localhost") -> str:
    return "\n".join((f"GET {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers))


@contextmanager
def logged(stack: Stack, service: str, text: str) -> Iterator[None]:
    """Check that the body leaves a line with this text in the service's log."""
    container = stack.container(service)
    before = run("docker", "logs", container).count(text)
    yield
    wait_for(f"a line {text!r}", lambda: run("docker", "logs", container).count(text) > before)


@pytest.fixture(scope="module", autouse=True)
def unharmed(stack: Stack) -> Iterator[None]:
    """Whatever the tests of this module do, the two servers go on as before."""
    before = {service: stack.inspect(service)["State"]["StartedAt"] for service in (WEB, FLOWER)}
    yield
    stack.data(
        "from axes.models import AccessAttempt; answer = AccessAttempt.objects.all().delete()"
    )
    for service, started in before.items():
        wait_for(service, lambda s=service: stack.health(s) == "healthy")
        assert stack.inspect(service)["State"]["StartedAt"] == started


# --- Who has no business there ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "path"),
    [
        (WEB, "/metrics"),
        (WEB, "/api/v1/alerts"),
        (WEB, "/api/openapi.json"),
        (FLOWER, "/metrics"),
        (FLOWER, "/"),
        (FLOWER, "/api/workers"),
        (FLOWER, "/api/tasks"),
    ],
)
def test_a_stranger_learns_nothing(stack: Stack, service: str, path: str) -> None:
    status, answer = ask(stack, service, get(path))
    assert status == 401
    for word in ("soc_", "flower_", "celery@", "worker-", "email@"):
        assert word not in answer


@pytest.mark.parametrize(
    ("service", "path", "body"), [(WEB, "/healthz", "ok\n"), (FLOWER, "/healthcheck", "OK")]
)
def test_a_health_check_says_that_and_no_more(
    stack: Stack, service: str, path: str, body: str
) -> None:
    status, answer = ask(stack, service, get(path))
    assert (status, answer.rpartition("\r\n\r\n")[2]) == (200, body)


GUESS = """
import base64, http.client, http.cookies, json, re, ssl, urllib.parse
context = ssl.create_default_context(cafile="/run/site/ca.pem")

def guess_web(name, password):
    connection = http.client.HTTPSConnection("web", 8443, context=context, timeout=20)
    connection.request("GET", "/sign-in/", headers={"Host": "localhost:8443"})
    page = connection.getresponse()
    cookies = "; ".join(c.split(";")[0] for c in page.headers.get_all("Set-Cookie"))
    token = re.search(r'csrfmiddlewaretoken" value="([^"]+)', page.read().decode())[1]
    form = {"csrfmiddlewaretoken": token, "username": name, "password": password}
    connection.close()
    headers = {"Host": "localhost:8443", "Referer": "https://localhost:8443/", "Cookie": cookies,
               "Content-Type": "application/x-www-form-urlencoded"}
    connection.request("POST", "/sign-in/", urllib.parse.urlencode(form), headers)
    answer = connection.getresponse()
    return answer.status, answer.headers.get("Retry-After")

def guess_flower(password):
    connection = http.client.HTTPSConnection("flower", 5555, context=context, timeout=20)
    login = base64.b64encode(f"admin:{password}".encode()).decode()
    connection.request("GET", "/metrics", headers={"Authorization": f"Basic {login}"})
    answer = connection.getresponse()
    return answer.status, answer.headers.get("Retry-After")

def ask_api(token):
    connection = http.client.HTTPSConnection("web", 8443, context=context, timeout=20)
    headers = {"Host": "localhost:8443", "Authorization": f"Bearer {token}"}
    connection.request("GET", "/api/v1/alerts", headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.headers.get("Retry-After")
"""


def guess(stack: Stack, code: str) -> list[list]:
    """Guess from a worker's container; return statuses and how long to wait."""
    printed = stack.python("worker-email", f"{GUESS}\nprint(json.dumps({code}))")
    return json.loads(printed.strip().splitlines()[-1])


def test_guessing_a_password_is_throttled_for_the_guesser_only(stack: Stack) -> None:
    password = stack.secret("migrate", "admin_password")
    with logged(stack, WEB, "Sign-in refused, and locked: user admin, address 1"):
        answers = guess(
            stack,
            f"[guess_web('admin', f'wrong {{n}}') for n in range(6)] "
            f"+ [guess_web('admin', {password!r})]",
        )
    assert [status for status, _ in answers] == [200] * 4 + [429] * 3
    assert 0 < int(answers[-1][1]) <= 900
    assert stack.browser().sign_in(password)[1] == f"{stack.url}/"


def test_guessing_a_token_is_throttled(stack: Stack) -> None:
    with logged(stack, WEB, "API token refused, and locked"):
        answers = guess(stack, "[ask_api(f'soc_{n}') for n in range(7)]")
    assert [status for status, _ in answers] == [401] * 5 + [429] * 2


def test_guessing_flowers_password_is_throttled_for_the_guesser_only(stack: Stack) -> None:
    password = stack.secret("flower", "password")
    with logged(stack, FLOWER, "Wrong password for Flower from 1"):
        answers = guess(
            stack,
            f"[guess_flower(p) for p in ('admin', 'guest', 'flower', *'1234567')] "
            f"+ [guess_flower({password!r})]",
        )
    assert [status for status, _ in answers] == [401] * 10 + [429]
    assert 0 < int(answers[-1][1]) <= 300
    assert stack.flower("/metrics")[0] == 200


# --- Forged requests ----------------------------------------------------------------------------


def test_a_form_without_a_token_is_refused(stack: Stack) -> None:
    with logged(stack, WEB, "Forbidden (CSRF cookie not set.)"):
        status, _, body = stack.browser().open("/sign-in/", {"username": "admin"})
    assert (status, "This form is out of date" in body) == (403, True)


def test_a_form_from_another_site_is_refused(stack: Stack) -> None:
    browser = stack.browser()
    browser.sign_in(stack.secret("migrate", "admin_password"))
    form = {"csrfmiddlewaretoken": browser.token("/admin/auth/group/add/"), "name": "forged"}
    with logged(stack, WEB, "Forbidden (Origin checking failed"):
        answer = browser.open(
            "/admin/auth/group/add/", form, headers={"Origin": "https://evil.test"}
        )
    assert answer[0] == 403


@pytest.mark.parametrize("field", ["Origin: https://evil.test", "Sec-Fetch-Site: cross-site"])
def test_flower_takes_no_order_from_another_site(stack: Stack, field: str) -> None:
    name, value = field.split(": ")
    status, _, _ = stack.browser().open(
        "/api/task/revoke/x", {}, base=stack.flower_url, headers={name: value}
    )
    assert status in (401, 403)


@pytest.mark.parametrize(
    "path",
    [
        *("/api/worker/shutdown/x", "/api/worker/pool/grow/x", "/api/worker/pool/restart/x"),
        *("/api/worker/queue/cancel-consumer/x", "/api/task/revoke/x", "/api/task/rate-limit/x"),
        *("/api/task/async-apply/soc.core.tasks.keep_house", "/api/task/abort/x"),
        "/api/task/send-task/soc.core.tasks.keep_house",
    ],
)
def test_flower_shows_and_does_nothing(stack: Stack, path: str) -> None:
    status, body = stack.flower(path, {})
    assert (status, body) == (403, "Read only mode is enabled")


@pytest.mark.parametrize(
    "head",
    [
        get("/sign-in/", host="evil.test"),
        get("/sign-in/", host="localhost.evil.test"),
        get("/sign-in/", host="evil.test:8443"),
        get("/sign-in/", host="localhost:8443@evil.test"),
    ],
    ids=["another", "longer", "with a port", "with a user"],
)
def test_another_host_name_is_refused(stack: Stack, head: str) -> None:
    with logged(stack, WEB, "Invalid HTTP_HOST header"):
        status, answer = ask(stack, WEB, head)
    assert status == 400
    assert "evil" not in answer


def test_a_forwarded_host_name_is_not_believed(stack: Stack) -> None:
    status, answer = ask(stack, WEB, get("/", "X-Forwarded-Host: evil.test"))
    assert status == 302
    assert "evil" not in answer


@pytest.mark.parametrize("target", ["https://evil.test/", "//evil.test", "/\\evil.test"])
def test_sign_in_sends_nobody_elsewhere(stack: Stack, target: str) -> None:
    browser = stack.browser()
    with logged(stack, WEB, "Refused to send a browser from sign-in to"):
        _, url, _ = browser.post(
            "/sign-in/",
            username="admin",
            password=stack.secret("migrate", "admin_password"),
            next=target,
        )
    assert url == f"{stack.url}/"


# --- Too much, too old, too far -----------------------------------------------------------------


def post(path: str, *headers: str) -> str:
    return get(path, *headers).replace("GET", "POST", 1)


FORM = "Content-Type: application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("head", "body", "line"),
    [
        (post("/sign-in/", FORM, "Content-Length: 1000000000"), b"", "Forbidden (Referer"),
        (get("/sign-in/", f"X-Long: {'x' * 20_000}"), b"", "Invalid request from ip"),
        (get("/sign-in/", *(f"X-{n}: x" for n in range(200))), b"", "Invalid request from ip"),
        (get(f"/{'x' * 9_000}"), b"", "Invalid request from ip"),
        (
            post("/sign-in/", "Content-Length: 4", "Transfer-Encoding: chunked"),
            b"0\r\n\r\n",
            "Invalid request from ip",
        ),
    ],
    ids=["1 GB", "20 kB in a header", "200 headers", "9 kB path", "smuggling"],
)
def test_a_request_that_is_too_much_is_refused_at_once(
    stack: Stack, head: str, body: bytes, line: str
) -> None:
    with logged(stack, WEB, line):
        status, answer = ask(stack, WEB, head, body)
    assert 400 <= status < 500
    assert "Traceback" not in answer


@pytest.mark.parametrize(
    ("body", "length"),
    [("", 3_000_000), ("&x=" * 2_000, 6_000)],
    ids=["3 MB", "2,000 fields"],
)
def test_a_form_that_is_too_much_is_refused(stack: Stack, body: str, length: int) -> None:
    """It comes from a page of ours; nobody waits for the megabytes."""
    browser = stack.browser()
    browser.token("/sign-in/")
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in browser.cookies)
    fields = (f"Content-Length: {length}", "Referer: https://localhost/", f"Cookie: {cookies}")
    with logged(stack, WEB, "exceeded settings.DATA_UPLOAD_MAX"):
        status, answer = ask(stack, WEB, post("/sign-in/", FORM, *fields), body.encode())
    assert (status, "This request cannot be answered" in answer) == (400, True)


@pytest.mark.parametrize("service", [WEB, FLOWER])
def test_tls_below_1_2_is_refused(stack: Stack, service: str) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(stack, service, minimum_version=ssl.TLSVersion.TLSv1,
                maximum_version=ssl.TLSVersion.TLSv1_1)  # fmt: skip
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        with connect(stack, service, minimum_version=version, maximum_version=version) as made:
            assert made.version() == version.name.replace("v1_", "v1.")


@pytest.mark.parametrize("service", [WEB, FLOWER])
def test_plain_http_gets_no_answer(stack: Stack, service: str) -> None:
    port = stack.web_port if service == WEB else stack.flower_port
    with socket.create_connection(("localhost", port), timeout=20) as plain:
        plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with suppress(ConnectionResetError):
            assert b"HTTP/1" not in plain.recv(1000)


@pytest.mark.parametrize("service", [WEB, FLOWER])
@pytest.mark.parametrize(
    "path",
    [
        "/static/../soc/settings.py",
        "/static/..%2f..%2fsoc/settings.py",
        "/static/%2e%2e/%2e%2e/etc/passwd",
        "/static//etc/passwd",
        "/static/....//....//etc/passwd",
        "/static/..\\..\\etc\\passwd",
    ],
)
def test_no_path_leads_out_of_the_static_files(stack: Stack, service: str, path: str) -> None:
    status, answer = ask(stack, service, get(path))
    assert status in (302, 400, 401, 403, 404)
    for word in ("root:", "SECRET_KEY", "import os"):
        assert word not in answer


# --- What every answer says ---------------------------------------------------------------------


HEADERS = {
    "Strict-Transport-Security": "max-age=",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": "frame-ancestors 'none'",
}


@pytest.mark.parametrize(
    ("service", "path"),
    [
        *((WEB, path) for path in ("/sign-in/", "/", "/nowhere", "/metrics", "/healthz")),
        *((FLOWER, path) for path in ("/", "/nowhere", "/metrics", "/healthcheck")),
    ],
)
def test_every_answer_has_its_headers(stack: Stack, service: str, path: str) -> None:
    _, answer = ask(stack, service, get(path))
    head = answer.partition("\r\n\r\n")[0]
    fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
    for name, part in HEADERS.items():
        assert part in fields.get(name, ""), name


def test_pages_behind_the_sign_in_stay_in_no_cache(stack: Stack) -> None:
    browser = stack.browser()
    browser.sign_in(stack.secret("migrate", "admin_password"))
    for path in ("/", "/alerts/", "/admin/", "/admin/auth/user/"):
        with browser.opener.open(f"{stack.url}{path}", timeout=20) as answer:
            assert "no-store" in answer.headers["Cache-Control"], path


def test_sign_in_gives_a_new_session_with_closed_cookies(stack: Stack) -> None:
    browser = stack.browser()
    token = browser.token("/sign-in/")
    (csrf,) = (f"{cookie.name}={cookie.value}" for cookie in browser.cookies)
    name = f"__Host-session-{stack.site}"
    password = stack.secret("migrate", "admin_password")
    form = {"csrfmiddlewaretoken": token, "username": "admin", "password": password}
    body = urlencode(form).encode()
    fields = (
        *(FORM, f"Content-Length: {len(body)}", "Referer: https://localhost/sign-in/"),
        f"Cookie: {name}=planted-by-somebody-else-0123456; {csrf}",
    )
    status, answer = ask(stack, WEB, post("/sign-in/", *fields), body)
    assert status == 302
    cookies = re.findall(r"^Set-Cookie: ([^=]+)=([^;]*); (.*?)\r$", answer, re.MULTILINE)
    assert {cookie for cookie, _, _ in cookies} == {name, csrf.partition("=")[0]}
    for cookie, value, attributes in cookies:
        assert cookie.startswith("__Host-")
        assert "planted" not in value
        assert {"HttpOnly", "Secure", "SameSite=Lax", "Path=/"} <= set(attributes.split("; "))
        assert "Domain" not in attributes


@pytest.mark.parametrize(
    "head",
    [
        get("/nowhere"),
        get("/alerts/99999999/"),
        get("/api/v1/alerts/x", "Authorization: Bearer soc_x"),
        get("/sign-in/", host="evil.test"),
        post("/sign-in/", FORM, "Content-Length: 0"),
    ],
    ids=["no page", "no row", "API", "host", "form"],
)
def test_an_error_tells_nothing_of_the_inside(stack: Stack, head: str) -> None:
    status, answer = ask(stack, WEB, head)
    assert status in (302, 400, 401, 403, 404, 429)
    for word in ("Traceback", "DEBUG", "/app/soc", "site-packages", "Django"):
        assert word not in answer


def test_the_deployment_checks_find_nothing(stack: Stack) -> None:
    answer = stack.exec(WEB, "python3", "manage.py", "check", "--deploy", "--fail-level", "WARNING")
    assert "no issues" in answer


def test_everything_is_in_the_audit_log(stack: Stack) -> None:
    events = stack.data("""
from auditlog.models import LogEntry
rows = LogEntry.objects.filter(action=LogEntry.Action.ACCESS)
answer = [[row.additional_data["event"], row.remote_addr] for row in rows]
""")
    seen = {event for event, _ in events}
    assert {"Signed in", "Sign-in refused", "Sign-in refused, and locked"} <= seen
    assert all(address for _, address in events)
