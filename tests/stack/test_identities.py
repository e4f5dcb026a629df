"""Every identity of a site tries every forbidden act: refused, and logged by the broker.

Run with ``-s`` to see the table: rows are identities, columns acts.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator

import pytest

import pki
from harness import Stack, run, wait_for
from soc.provision import site
from soc.provision.pki import KeyPair
from soc.runtime.queues import QUEUES, TASK_QUEUES

WORKERS = {queue.service: queue.name for queue in QUEUES}
USERS = (*WORKERS, "beat", "flower", *site.PUBLISHERS)
NOBODIES = ("mariadb", "rabbitmq", "migrate", "web", "catcher")
"""Who has a certificate of the site but no business at the broker."""

MAY = {
    **{(name, "send task events"): "what Flower shows" for name in WORKERS},
    **{
        ("beat", act): "it queues every periodic task"
        for act in ("publish for another", "publish for another, delayed")
    },
    (site.SAMPLER, "read dead letters"): "it keeps those of every task queue for a person",
    ("flower", "broadcast control"): "what its pages of workers ask and tell",
    ("flower", "sniff task events"): "what its pages show",
    **{
        (name, "publish for the mail"): "wakes who sends the mail that it wrote"
        for name in (*(queue.service for queue in TASK_QUEUES), "beat")
    },
    **{(name, "publish an event of robots"): "its only purpose" for name in site.PUBLISHERS},
    **{
        (name, "declare the exchange of robots"): "Logstash does; it could delete it too"
        for name in site.PUBLISHERS
    },
}
"""The cells of the table that are allowed, and why."""


@pytest.fixture(scope="module")
def answers(stack: Stack) -> dict[str, dict[str, str]]:
    """What the broker said to each identity's acts; nothing where it obeyed."""
    folder = stack.folder / "env" / stack.site
    identities = [f"--volume={folder}/{name}:/identities/{name}:ro" for name in (*USERS, *NOBODIES)]
    printed = run(
        "docker", "run", "--rm", f"--network={stack.project}_data", "--cap-drop=ALL",
        f"--volume={stack.folder}/tests/stack/attacker.py:/attacker.py:ro", *identities,
        stack.inspect("web")["Config"]["Image"], "python3", "/attacker.py", json.dumps(WORKERS),
    )  # fmt: skip
    return json.loads(printed.splitlines()[-1])


@pytest.fixture(scope="module")
def broker_log(stack: Stack, answers: dict[str, dict[str, str]]) -> str:
    return run("docker", "logs", stack.container("rabbitmq"))


def allowed(answers: dict[str, dict[str, str]]) -> Iterator[tuple[str, str]]:
    for name in USERS:
        for act, answer in answers[name].items():
            if not answer and act != "log in":
                yield name, act


def test_every_forbidden_act_of_every_identity_is_refused(
    answers: dict[str, dict[str, str]],
) -> None:
    print(table(answers))
    assert set(allowed(answers)) == set(MAY)


def test_every_refusal_is_in_the_log_of_the_broker(
    answers: dict[str, dict[str, str]], broker_log: str
) -> None:
    logged = Counter(re.findall(r"channel exception access_refused: (.+)", broker_log))
    for name in USERS:
        refused = Counter(
            answer.removeprefix("ACCESS_REFUSED - ")
            for answer in answers[name].values()
            if answer.startswith("ACCESS_REFUSED")
        )
        assert len(refused) >= 15, name
        assert all(f"user '{name}'" in words for words in refused)
        assert refused <= logged, name


def test_nobody_is_somebody_else(answers: dict[str, dict[str, str]], broker_log: str) -> None:
    """A service has no password, and so none to be guessed either."""
    for other in ("beat", "flower"):
        assert re.search(f"PLAIN login refused: user '{other}'", broker_log)
    for name in USERS:
        assert "ACCESS_REFUSED" in answers[name]["log in as another"], name


def test_nobody_but_the_monitor_gets_into_the_management_api(
    answers: dict[str, dict[str, str]], broker_log: str
) -> None:
    assert {answers[name]["ask the management API"] for name in USERS} == {"management API: 401"}
    for name in USERS:
        assert re.search(f"HTTP access denied: user '{name}'", broker_log), name


def test_who_has_no_business_at_the_broker_is_not_let_in(
    answers: dict[str, dict[str, str]], broker_log: str
) -> None:
    for name in NOBODIES:
        assert "ACCESS_REFUSED" in answers[name]["log in"], name
        assert re.search(f"EXTERNAL login refused: user '{name}'", broker_log), name


def table(answers: dict[str, dict[str, str]]) -> str:
    """Return the matrix: a letter a cell, and what the letters and columns mean."""
    columns = [act for act in answers["beat"] if act != "log in"]
    lines = [f"{number:2}  {act}" for number, act in enumerate(columns, start=1)]
    lines.append(" " * 24 + "".join(f"{number:3}" for number in range(1, len(columns) + 1)))
    for name in (*USERS, *NOBODIES):
        cells = [
            "-" if answers[name].get(act, "refused") else "A" if (name, act) in MAY else "!"
            for act in columns
        ]
        lines.append(f"{name:24}" + "".join(f"{cell:>3}" for cell in cells))
    lines.append("-: refused and logged   A: allowed   !: allowed and should not be")
    lines += [f"A  {name}, {act}: {why}" for (name, act), why in MAY.items()]
    return "\n" + "\n".join(lines)


HANDSHAKES = r"""
import json, socket, ssl

def shake(name, certificate="/run/site/cert.pem", key="/run/site/key.pem", plain=False,
          version=ssl.TLSVersion.TLSv1_2, send=b""):
    context = ssl.create_default_context(cafile="/run/site/ca.pem")
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = version
    if certificate:
        context.load_cert_chain(certificate, key)
    try:
        with socket.create_connection(("rabbitmq", 5671), timeout=5) as raw:
            peer = raw if plain else context.wrap_socket(raw, server_hostname="rabbitmq")
            peer.sendall(b"AMQP\0\0\x09\x01")
            answer = peer.recv(8)
    except OSError as error:
        answers[name] = str(error)
    else:
        answers[name] = "" if answer[:1] == b"\x01" else "closed"

answers = {}
shake("our own certificate")
shake("no TLS", plain=True)
shake("TLS 1.1", version=ssl.TLSVersion.TLSv1_1)
shake("no client certificate", certificate="")
for kind in ("expired", "of another CA"):
    shake(kind, certificate=f"/tmp/{kind}.pem", key=f"/tmp/{kind}.pem")
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def handshakes(stack: Stack) -> dict[str, str]:
    """What became of connections that must not come to be."""
    folder = stack.folder / "env" / stack.site / "ca"
    loaded = KeyPair.load(folder / "ca.pem", folder / "ca.key")
    authority = pki.Issued(loaded.certificate, loaded.key)
    past = {"not_before": pki.NOW - 9 * pki.DAY, "not_after": pki.NOW - pki.DAY}
    certificates = {
        "expired": pki.issue("worker-email", authority, **past),
        "of another CA": pki.issue("worker-email", pki.issue("stranger", ca=True)),
    }
    contents = {
        f"/tmp/{name}.pem": (issued.cert_pem + issued.key_pem).decode()
        for name, issued in certificates.items()
    }
    code = f"""
from pathlib import Path
for path, text in {contents!r}.items():
    Path(path).write_text(text)
"""
    return json.loads(stack.python("worker-email", code + HANDSHAKES).splitlines()[-1])


@pytest.mark.parametrize(
    ("how", "logged"),
    [
        ("no TLS", r"is connecting to the 'amqp/ssl' listener without using TLS"),
        ("TLS 1.1", r"generated SERVER ALERT: Fatal - Protocol Version"),
        ("no client certificate", r"no_client_certificate_provided"),
        ("expired", r"generated SERVER ALERT: Fatal - Certificate Expired"),
        ("of another CA", r"generated SERVER ALERT: Fatal - Unknown CA"),
    ],
)
def test_a_connection_that_is_not_ours_is_refused_with_a_log_line(
    stack: Stack, handshakes: dict[str, str], how: str, logged: str
) -> None:
    assert handshakes["our own certificate"] == ""
    assert handshakes[how], how
    log = run("docker", "logs", stack.container("rabbitmq"))
    assert re.search(logged, log), log[-4000:]


def test_a_message_of_twenty_megabytes_is_refused(stack: Stack) -> None:
    answer = stack.python(
        "worker-shared",
        """
from kombu import Exchange
from soc.runtime.celery import app
try:
    with app.producer_pool.acquire(block=True) as producer:
        producer.publish("x" * 20_000_000, exchange=Exchange("soc.tasks", no_declare=True),
                         routing_key="shared", mandatory=True)
    print("TAKEN")
except Exception as error:
    print("REFUSED", error)
""",
    )
    assert "REFUSED" in answer
    wait_for(
        "the log line",
        lambda: re.search(
            r"message size 2000\d+ is larger than configured max size 16777216",
            run("docker", "logs", stack.container("rabbitmq")),
        ),
    )


def test_the_stack_is_unharmed(stack: Stack, answers: dict[str, dict[str, str]]) -> None:
    assert answers
    for service in stack.services():
        state = stack.inspect(service)
        assert state["State"]["Health"]["Status"] == "healthy", service
        assert state["RestartCount"] == 0, service
    queues = stack.queues()
    assert {queue.name: queues[queue.name]["consumers"] for queue in TASK_QUEUES} == {
        queue.name: 1 for queue in TASK_QUEUES
    }
