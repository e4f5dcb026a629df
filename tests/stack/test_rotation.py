"""A site whose certificates end within a minute, and one whose every secret is replaced.

It has a site of its own, because it changes what all tests of the other know.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

import pki as keys
from harness import Browser, Stack, new_name, run, wait_for, wait_until_equal
from soc.provision import pki
from soc.provision.site import SERVICES
from soc.runtime.queues import TASK_QUEUES

pytestmark = pytest.mark.drill

LIFETIME = timedelta(seconds=30)
SERVERS = ("mariadb", "rabbitmq")
LISTENERS = {"web": 8443, "flower": 5555, "rabbitmq": 5671}


@pytest.fixture(scope="module")
def site(stack: Stack) -> Iterator[Stack]:
    """A second site beside the one that all tests share."""
    second = Stack(stack.folder, new_name())
    try:
        second.create()
        second.make("up")
        yield second
    finally:
        second.remove()
        run("ln", "-sfn", f"env/{stack.site}.env", ".env", cwd=stack.folder)


def folder_of(site: Stack) -> Path:
    return site.folder / "env" / site.site


def started(site: Stack, *services: str) -> dict[str, str]:
    return {name: site.inspect(name)["State"]["StartedAt"] for name in services}


def served(site: Stack, service: str) -> x509.Certificate:
    """The certificate that a server shows to who connects now, as a PEM of openssl."""
    name = f"{service}:{LISTENERS[service]}"
    shown = site.exec(
        "worker-email", "sh", "-c",
        f"openssl s_client -connect {name} -cert /run/site/cert.pem -key /run/site/key.pem "
        "</dev/null 2>/dev/null | openssl x509",
    )  # fmt: skip
    return x509.load_pem_x509_certificate(shown.encode())


def served_by_database(site: Stack) -> x509.Certificate:
    shown = site.exec(
        "worker-email", "sh", "-c",
        "openssl s_client -starttls mysql -connect mariadb:3306 </dev/null 2>/dev/null "
        "| openssl x509",
    )  # fmt: skip
    return x509.load_pem_x509_certificate(shown.encode())


def all_served(site: Stack) -> dict[str, x509.Certificate]:
    return {name: served(site, name) for name in LISTENERS} | {"mariadb": served_by_database(site)}


TRUSTED = """
import socket, ssl
context = ssl.create_default_context(cafile="/run/site/ca.pem")
context.load_cert_chain("/run/site/cert.pem", "/run/site/key.pem")
answer = {}
for name, port in LISTENERS.items():
    try:
        with socket.create_connection((name, port), timeout=5) as raw:
            with context.wrap_socket(raw, server_hostname=name) as peer:
                peer.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
                answer[name] = "" if peer.recv(1) else "closed"
    except OSError as error:
        answer[name] = str(error)
"""
"""Whatever they speak, each answers at least one byte to who is let in."""


def problems(site: Stack) -> dict[str, str]:
    """What keeps the web container from trusting each listener, and being trusted by it."""
    return site.data(f"LISTENERS = {LISTENERS}\n{TRUSTED}")


def test_certificates_that_end_in_seconds_are_replaced_without_a_restart(site: Stack) -> None:
    """Every server really serves the dying ones first, and connections by them really fail."""
    ca = folder_of(site) / "ca"
    authority = pki.KeyPair.load(ca / "ca.pem", ca / "ca.key")
    files = {}
    for name, pem in read_now(site, [(service, "cert.pem") for service in SERVICES]).items():
        service = name.partition("/")[0]
        hosts = pki.names(x509.load_pem_x509_certificate(pem.encode()))
        dying = pki.issue(authority, service, sorted(hosts), LIFETIME)
        files[service] = (dying.certificate_pem.decode(), dying.key_pem.decode())
    ends = datetime.now(UTC) + LIFETIME
    write_as_root(site, files)
    before = started(site, *site.services())
    site.exec("rabbitmq", "rabbitmqctl", "-q", "eval", "ssl:clear_pem_cache().")
    site.exec(
        "mariadb", "sh", "-c",
        "MYSQL_PWD=$(cat /run/site/root_password) mariadb -uroot -e 'FLUSH SSL'",
    )  # fmt: skip
    assert all(c.not_valid_after_utc <= ends for c in all_served(site).values())
    time.sleep(max(0, (ends - datetime.now(UTC)).total_seconds()) + 1)
    assert all("certificate has expired" in problem for problem in problems(site).values())

    told = site.make("certs")
    for service in SERVICES:
        if service != "catcher":
            assert service in told
    late = datetime.now(UTC) + timedelta(days=300)
    assert all(c.not_valid_after_utc > late for c in all_served(site).values())
    assert problems(site) == dict.fromkeys(LISTENERS, "")
    after = started(site, *site.services())
    assert {name for name, at in after.items() if at != before[name]} <= {"catcher"}
    # Workers meet both servers anew, with their new certificates.
    site.exec("rabbitmq", "rabbitmqctl", "-q", "close_all_connections", "a test")
    wait_for_consumers(site)
    site.run_task("soc.core.tasks.keep_house")


def write_as_root(site: Stack, files: dict[str, tuple[str, str]]) -> None:
    as_root(
        site,
        f"""
from pathlib import Path
for service, (certificate, key) in {files!r}.items():
    for name, text in (("key.pem", key), ("cert.pem", certificate)):
        Path("/site", service, name).write_text(text)
""",
    )


def as_root(site: Stack, code: str) -> str:
    """Run Python code that may touch the files of the services, in /site."""
    return run(
        "docker", "run", "--rm", "--interactive", "--user=0:0", "--network=none",
        "--cap-drop=ALL", "--cap-add=DAC_OVERRIDE", f"--volume={folder_of(site)}:/site",
        site.inspect("web")["Config"]["Image"], "python3", "-", stdin=code,
    )  # fmt: skip


def wait_for_consumers(site: Stack) -> None:
    expected = {queue.name: 1 for queue in TASK_QUEUES}
    wait_until_equal(
        "every worker",
        lambda: {name: q["consumers"] for name, q in site.queues().items() if name in expected},
        expected,
        seconds=90,
    )


TASKS = 150

LOAD = f"""
import json, time
from soc.runtime.celery import app
ids = []
for number in range({TASKS}):
    # An argument that it does not take: each run leaves a row with its id.
    ids.append(app.send_task(
        "soc.notify.tasks.send_due_mail", args=[number], mandatory=True,
        countdown=2 if number % 10 == 0 else None, retry=True,
        retry_policy={{"max_retries": None, "interval_max": 1}}).id)
    time.sleep(0.2)
print(json.dumps(ids))
"""
"""Queues a task every 0.2 s, so that some are on their way at every step."""


REPLACED = [
    *(("flower", name) for name in ("password", "monitor_password")),
    *(("web", name) for name in ("secret_key", "sealing_keys")),
    ("mariadb", "root_password"),
    *((service, "key.pem") for service in SERVICES),
]
KEPT = ("cert.pem", "key.pem")


def read_now(site: Stack, names: list[tuple[str, str]]) -> dict[str, str]:
    """Read files of services past the harness's memory of them."""
    code = f"""
import json
from pathlib import Path
print(json.dumps({{f"{{s}}/{{n}}": Path("/site", s, n).read_text() for s, n in {names!r}}}))
"""
    return json.loads(as_root(site, code))


@dataclass(frozen=True)
class Rotation:
    """What a rotation under load changed, and what became of the load."""

    old: dict[str, str]
    new: dict[str, str]
    queued: list[str]
    done: set[str]
    servers_stayed: bool
    dead: dict[str, int]
    browser: Browser
    credential: str


CREDENTIAL = "of a directory that the tests watch"


@pytest.fixture(scope="module")
def rotation(site: Stack) -> Rotation:
    """`make rotate`, while tasks are queued all the time."""
    browser = site.browser()
    browser.sign_in(site.secret("migrate", "admin_password"))
    names = [*REPLACED, *(("worker-email", name) for name in KEPT)]
    old = read_now(site, names)
    token = site.data(
        f"from soc.core.sealed import Sealed\nanswer = Sealed({CREDENTIAL!r}).token()"
    )
    servers = started(site, *SERVERS)
    before = dead_letters(site)
    with ThreadPoolExecutor(1) as pool:
        # From a container of its own: the workers are started again.
        load = pool.submit(site.python_beside, "worker-email", LOAD)
        site.make("rotate")
        queued = json.loads(load.result().strip().splitlines()[-1])
    wait_until_equal("an empty queue", lambda: site.queues()["email"]["messages"], 0)
    done = site.data("""
from soc.core.models import TaskFailure
answer = list(TaskFailure.objects.values_list("task_id", flat=True))
""")
    return Rotation(
        old=old,
        new=read_now(site, names),
        queued=queued,
        done=set(done),
        servers_stayed=started(site, *SERVERS) == servers,
        dead={name: count - before[name] for name, count in dead_letters(site).items()},
        browser=browser,
        credential=token,
    )


def dead_letters(site: Stack) -> dict[str, int]:
    return {queue.name: site.dead_letters(queue.name) for queue in TASK_QUEUES}


def test_no_task_is_lost(rotation: Rotation) -> None:
    assert len(rotation.queued) == TASKS
    assert set(rotation.queued) - rotation.done == set()
    assert set(rotation.dead.values()) == {0}


def test_every_secret_and_every_key_is_new(rotation: Rotation) -> None:
    assert {name for name in rotation.old if rotation.old[name] == rotation.new[name]} == set()


def test_neither_the_database_nor_the_broker_was_started_again(rotation: Rotation) -> None:
    assert rotation.servers_stayed


def test_everybody_serves_and_trusts_the_new_ca_alone(site: Stack, rotation: Rotation) -> None:
    assert rotation.servers_stayed
    authorities = x509.load_pem_x509_certificates((folder_of(site) / "ca/ca.pem").read_bytes())
    assert len(authorities) == 1
    for certificate in all_served(site).values():
        certificate.verify_directly_issued_by(authorities[0])
    assert problems(site) == dict.fromkeys(LISTENERS, "")
    for service in site.services():
        wait_for(service, lambda s=service: site.health(s) == "healthy")
    wait_for_consumers(site)


def test_whoever_was_signed_in_still_is(site: Stack, rotation: Rotation) -> None:
    browser = site.browser()
    assert 'name="password"' in browser.open("/")[2]
    for cookie in rotation.browser.cookies:
        browser.cookies.set_cookie(cookie)
    assert 'name="password"' not in browser.open("/")[2]


def test_a_stored_credential_opens_only_before_it_was_sealed_anew(
    site: Stack, rotation: Rotation
) -> None:
    """What nobody sealed anew, because no table holds it, was sealed with a key that is gone."""
    told = site.data(f"""
from soc.core.sealed import Sealed, SealProblem
try:
    answer = Sealed(token={rotation.credential!r}).reveal()
except SealProblem as problem:
    answer = str(problem)
""")
    assert "was sealed with a key that is not in" in told


def test_a_thief_of_before_is_shut_out(site: Stack, rotation: Rotation) -> None:
    """His certificate, and the passwords of Flower and of the management API."""
    told = site.data(f"""
import base64, socket, ssl, urllib.error, urllib.request
from pathlib import Path
Path("/tmp/old.pem").write_text({"".join(rotation.old[f"worker-email/{n}"] for n in KEPT)!r})
context = ssl.create_default_context(cafile="/run/site/ca.pem")
answer = {{}}

def ask(what, url, password):
    login = base64.b64encode(password.encode()).decode()
    request = urllib.request.Request(url, headers={{"Authorization": f"Basic {{login}}"}})
    try:
        urllib.request.urlopen(request, context=context, timeout=5)
        answer[what] = "let in"
    except urllib.error.HTTPError as error:
        answer[what] = str(error.code)

for age, flower, monitor in {passwords(rotation)!r}:
    ask(age + " flower", "https://flower:5555/", "admin:" + flower)
    ask(age + " monitor", "https://rabbitmq:15671/api/queues", "monitor:" + monitor)
context.load_cert_chain("/tmp/old.pem")
try:
    with socket.create_connection(("rabbitmq", 5671), timeout=5) as raw:
        with context.wrap_socket(raw, server_hostname="rabbitmq") as peer:
            peer.sendall(b"AMQP\\0\\0\\x09\\x01")
            answer["certificate"] = "let in" if peer.recv(1) else "closed"
except OSError as error:
    answer["certificate"] = str(error)
""")
    assert told["old flower"] == told["old monitor"] == "401"
    assert told["new flower"] == told["new monitor"] == "let in"
    assert "unknown ca" in told["certificate"]


def passwords(rotation: Rotation) -> list[tuple[str, str, str]]:
    return [
        (age, files["flower/password"], files["flower/monitor_password"])
        for age, files in (("old", rotation.old), ("new", rotation.new))
    ]


def test_a_certificate_that_the_site_brought_is_served_at_once(site: Stack) -> None:
    leaf = keys.issue("soc.health.internal", keys.issue("corporate CA", ca=True), san=["localhost"])
    as_root(
        site,
        f"""
from pathlib import Path
for name, content in (("own-key.pem", {leaf.key_pem!r}), ("own-cert.pem", {leaf.cert_pem!r})):
    Path("/site/web", name).write_bytes(content)
""",
    )
    # It gives the files to the service, and takes no offence at them.
    site.make("certs")
    assert served(site, "web") == leaf.cert
    assert served(site, "rabbitmq") != leaf.cert
    assert site.exec("web", "serves", "8443", "/healthz") == ""
