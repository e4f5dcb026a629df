"""What must be refused is refused, and what is refused is not lost."""

from __future__ import annotations

import json

import pytest

import pki
from harness import Stack, new_name, run, wait_for
from soc.provision.pki import KeyPair

CONNECT = """
import socket, ssl, sys
from kombu import Connection

def attempt(url, **options):
    try:
        with Connection(url, connect_timeout=5, **options) as connection:
            connection.connect()
            connection.default_channel
    except Exception as error:
        print("REFUSED", type(error).__name__, error)
    else:
        print("CONNECTED")

OWN = {
    "ca_certs": "/run/site/ca.pem", "certfile": "/run/site/cert.pem",
    "keyfile": "/run/site/key.pem", "cert_reqs": ssl.CERT_REQUIRED, "server_hostname": None,
}
"""


def attempt(stack: Stack, code: str) -> str:
    return stack.python("worker-email", CONNECT + code).strip().splitlines()[-1]


def test_the_own_certificate_connects(stack: Stack) -> None:
    code = 'attempt("amqps://worker-email@rabbitmq//", ssl=OWN, login_method="EXTERNAL")'
    assert attempt(stack, code) == "CONNECTED"


@pytest.mark.parametrize(
    ("why", "code", "error"),
    [
        ("no plain AMQP", 'attempt("amqp://rabbitmq:5672//")', "ConnectionRefusedError"),
        (
            "plain AMQP to the TLS port",
            'attempt("amqp://rabbitmq:5671//")',
            "Server unexpectedly closed connection",
        ),
        (
            "another CA",
            'attempt("amqps://rabbitmq//", login_method="EXTERNAL", '
            'ssl={**OWN, "ca_certs": "/etc/ssl/certs/ca-certificates.crt"})',
            "CERTIFICATE_VERIFY_FAILED",
        ),
        (
            "a name that is not the broker's",
            "attempt(f\"amqps://{socket.gethostbyname('rabbitmq')}//\", ssl=OWN, "
            'login_method="EXTERNAL")',
            "CERTIFICATE_VERIFY_FAILED",
        ),
        (
            "no client certificate",
            'attempt("amqps://rabbitmq//", login_method="EXTERNAL", ssl={k: v for k, v in '
            'OWN.items() if k not in ("certfile", "keyfile")})',
            "CERTIFICATE_REQUIRED",
        ),
        (
            "a password",
            'attempt("amqps://guest:guest@rabbitmq//", ssl=OWN, login_method="PLAIN")',
            "ACCESS_REFUSED",
        ),
    ],
)
def test_the_broker_refuses(stack: Stack, why: str, code: str, error: str) -> None:
    answer = attempt(stack, code)
    assert answer.startswith("REFUSED"), why
    assert error in answer


def attempt_with(stack: Stack, identity: pki.Issued) -> str:
    """Log in as the email worker with a certificate that the test has issued."""
    return attempt(
        stack,
        f"""
from pathlib import Path
Path("/tmp/issued.pem").write_bytes({identity.cert_pem + identity.key_pem!r})
attempt("amqps://worker-email@rabbitmq//", login_method="EXTERNAL",
        ssl={{**OWN, "certfile": "/tmp/issued.pem", "keyfile": "/tmp/issued.pem"}})
""",
    )


@pytest.fixture(scope="module")
def authority(stack: Stack) -> pki.Issued:
    folder = stack.folder / "env" / stack.site / "ca"
    loaded = KeyPair.load(folder / "ca.pem", folder / "ca.key")
    return pki.Issued(loaded.certificate, loaded.key)


def test_the_broker_takes_whom_the_sites_ca_vouches_for(
    stack: Stack, authority: pki.Issued
) -> None:
    assert attempt_with(stack, pki.issue("worker-email", authority)) == "CONNECTED"


def test_the_broker_refuses_a_name_that_another_ca_vouches_for(
    stack: Stack, authority: pki.Issued
) -> None:
    namesake = pki.issue(authority.cert.subject.rfc4514_string().removeprefix("CN="), ca=True)
    answer = attempt_with(stack, pki.issue("worker-email", namesake))
    assert answer.startswith("REFUSED")
    assert "UNKNOWN_CA" in answer


def test_the_broker_refuses_an_expired_certificate(stack: Stack, authority: pki.Issued) -> None:
    past = {"not_before": pki.NOW - 9 * pki.DAY, "not_after": pki.NOW - pki.DAY}
    answer = attempt_with(stack, pki.issue("worker-email", authority, **past))
    assert answer.startswith("REFUSED")
    assert "CERTIFICATE_EXPIRED" in answer


def test_the_broker_refuses_a_certificate_of_nobody(stack: Stack, authority: pki.Issued) -> None:
    answer = attempt_with(stack, pki.issue("stranger", authority))
    assert answer.startswith("REFUSED")
    assert "ACCESS_REFUSED" in answer


def test_guest_does_not_exist(stack: Stack) -> None:
    users = stack.exec("rabbitmq", "rabbitmqctl", "-q", "list_users")
    assert "guest" not in users
    assert "worker-email" in users


def test_a_worker_can_neither_read_nor_empty_another_queue(stack: Stack) -> None:
    for act in ("basic_get", "queue_purge"):
        answer = attempt(
            stack,
            f"""
with Connection("amqps://worker-email@rabbitmq//", ssl=OWN, login_method="EXTERNAL") as c:
    try:
        c.default_channel.{act}("shared")
        print("ALLOWED")
    except Exception as error:
        print("REFUSED", error)
""",
        )
        assert "ACCESS_REFUSED" in answer, act


PUBLISH = """
from kombu import Exchange
from soc.runtime.celery import app

def publish(body, **options):
    with app.producer_pool.acquire(block=True) as producer:
        producer.publish(body, exchange=Exchange("soc.tasks", "topic", no_declare=True),
                         routing_key="shared", mandatory=True, **options)
"""


@pytest.mark.parametrize(
    ("what", "code"),
    [
        (
            "pickle",
            'publish(b"\\x80\\x04N.", content_type="application/x-python-serialize", '
            'content_encoding="binary", headers={"task": "soc.core.tasks.keep_house", "id": "1"})',
        ),
        (
            "broken JSON",
            'publish(b"{", content_type="application/json", content_encoding="utf-8")',
        ),
        (
            "an unknown task",
            'publish(b"[[], {}, {}]", content_type="application/json", content_encoding="utf-8", '
            'headers={"task": "soc.core.tasks.forged", "id": "2"})',
        ),
        (
            "another worker's task",
            'publish(b"[[], {}, {}]", content_type="application/json", content_encoding="utf-8", '
            'headers={"task": "soc.ldap_probe.tasks.probe_due", "id": "3"})',
        ),
    ],
)
def test_a_bad_message_is_parked_and_the_worker_lives(stack: Stack, what: str, code: str) -> None:
    before = stack.dead_letters("shared")
    container = stack.inspect("worker-shared")["Id"]
    stack.python("worker-shared", PUBLISH + code)
    wait_for(what, lambda: stack.dead_letters("shared") == before + 1)
    assert stack.inspect("worker-shared")["Id"] == container
    assert stack.inspect("worker-shared")["RestartCount"] == 0
    assert stack.queues()["shared"]["consumers"] == 1


def test_a_delayed_message_is_parked_like_any_other(stack: Stack) -> None:
    """Its first death was in the queue of its delay, its last is the one that counts."""
    before = stack.dead_letters("shared")
    stack.python(
        "worker-shared",
        """
from kombu import Exchange
from soc.runtime.celery import app
with app.producer_pool.acquire(block=True) as producer:
    producer.publish(b"{", exchange=Exchange("celery_delayed_27", "topic", no_declare=True),
                     routing_key="0." * 27 + "1.shared", mandatory=True,
                     content_type="application/json", content_encoding="utf-8")
""",
    )
    wait_for("it", lambda: stack.dead_letters("shared") == before + 1)
    assert stack.queues()["shared"]["messages"] == 0


def test_a_task_that_came_too_late_is_not_a_dead_letter(stack: Stack) -> None:
    before = stack.queues()
    dead = stack.dead_letters("ssl_certs")
    stack.compose("stop", "worker-ssl-certs")
    stack.python(
        "beat",
        """
from soc.ssl_certs import tasks
for _ in range(5):
    tasks.scan_due.apply_async(expires=1)
""",
    )
    wait_for(
        "the expiry",
        lambda: stack.queues()["soc.expired"]["messages"] >= before["soc.expired"]["messages"] + 5,
    )
    stack.compose("start", "worker-ssl-certs")
    assert stack.dead_letters("ssl_certs") == dead


def test_publishing_to_nowhere_raises(stack: Stack) -> None:
    answer = stack.python(
        "worker-shared",
        """
from soc.core.tasks import keep_house
try:
    keep_house.apply_async(routing_key="nowhere", exchange="soc.tasks", queue=None, retry=False)
    print("LOST")
except Exception as error:
    print("RAISED", type(error).__name__, error)
""",
    )
    assert "RAISED" in answer
    # No service may use a key that no queue is bound to.
    assert "ACCESS_REFUSED" in answer


DATABASE = """
import socket, MySQLdb
own = {"ca": "/run/site/ca.pem", "cert": "/run/site/cert.pem", "key": "/run/site/key.pem"}
bare = {"ca": "/run/site/ca.pem"}
other = {**own, "ca": "/etc/ssl/certs/ca-certificates.crt"}
here = {"db": "soc", "host": "mariadb", "ssl_mode": "VERIFY_IDENTITY"}
"""


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ('user="soc_web", ssl=own', ""),
        ('user="soc_web", ssl_mode="DISABLED"', "insecure transport"),
        ('user="soc_web", ssl=other', "certificate"),
        (
            'user="soc_web", host=socket.gethostbyname("mariadb"), ssl=own',
            "hostname verification failed",
        ),
        ('user="soc_web", ssl=bare', "access denied"),
        ('user="soc_migrate", ssl=own', "access denied"),
        ('user="soc_beat", ssl=own', "access denied"),
        ('user="root", ssl=own', "access denied"),
        ('user="", ssl=own', "access denied"),
    ],
    ids=[
        "as we do", "in the clear", "another CA", "another name", "no certificate",
        "as the owner", "as another service", "as root", "as nobody",
    ],
)  # fmt: skip
def test_the_database_and_its_clients_insist_on_verified_tls(
    stack: Stack, how: str, error: str
) -> None:
    code = f"""{DATABASE}
try:
    MySQLdb.connect(**here | dict({how}))
    print("CONNECTED")
except MySQLdb.Error as error:
    print("REFUSED", error)
"""
    answer = stack.python("web", code).strip().splitlines()[-1]
    if error:
        assert answer.startswith("REFUSED")
        assert error in answer.lower()
    else:
        assert answer == "CONNECTED"


def test_a_refused_login_is_in_the_log_of_the_database(stack: Stack) -> None:
    code = f"""{DATABASE}
try:
    MySQLdb.connect(**here, user="soc_migrate", ssl=own)
except MySQLdb.Error:
    pass
"""
    stack.python("worker-email", code)
    log = run("docker", "logs", stack.container("mariadb"))
    assert "Access denied for user 'soc_migrate'" in log


STATEMENTS = {
    "CREATE TABLE t (i INT)": (),
    "DROP TABLE core_heartbeat": (),
    "ALTER TABLE core_heartbeat ADD x INT": (),
    "TRUNCATE core_heartbeat": (),
    "GRANT SELECT ON core_heartbeat TO 'soc_beat'@'%'": (),
    "CREATE USER stranger": (),
    "SELECT * FROM mysql.global_priv": (),
    "SELECT 1 INTO OUTFILE '/tmp/x'": (),
    "UPDATE django_migrations SET name = name": (),
    "UPDATE auth_user SET is_superuser = is_superuser": ("web",),
    "DELETE FROM auth_user_groups WHERE 0": ("web",),
    "SELECT * FROM django_session WHERE 0": ("web", "worker-shared"),
    "UPDATE django_session SET session_key = session_key": ("web",),
    "SELECT * FROM core_apitoken WHERE 0": ("web", "worker-shared"),
    "SELECT * FROM alerts_alert WHERE 0": ("web", "worker-shared", "worker-email"),
    "UPDATE core_heartbeat SET service = service": ("web", "worker-shared", "worker-email", "beat"),
}
"""Statements, and which of four services may run them."""


@pytest.mark.parametrize("service", ["web", "worker-shared", "worker-email", "beat"])
def test_a_service_can_do_to_the_tables_what_it_needs_and_no_more(
    stack: Stack, service: str
) -> None:
    printed = stack.python(
        service,
        f"""
import json
from django.db import connection, utils
answers = {{}}
with connection.cursor() as cursor:
    for statement in {list(STATEMENTS)!r}:
        try:
            cursor.execute(statement)
            answers[statement] = "ALLOWED"
        except utils.OperationalError as error:
            answers[statement] = str(error)
print(json.dumps(answers))
""",
    )
    answers = json.loads(printed.strip().splitlines()[-1])
    may = {statement for statement, services in STATEMENTS.items() if service in services}
    assert {statement for statement, answer in answers.items() if answer == "ALLOWED"} == may
    refused = [answer for answer in answers.values() if answer != "ALLOWED"]
    assert all("denied" in answer for answer in refused), refused


def test_the_database_knows_time_zones_and_utf8(stack: Stack) -> None:
    assert stack.data("""
from django.db import connection
with connection.cursor() as cursor:
    cursor.execute("SELECT CONVERT_TZ('2026-07-01 12:00:00', 'UTC', 'Europe/Berlin') = "
                   "'2026-07-01 14:00:00', @@character_set_database, @@global.time_zone")
    answer = cursor.fetchone()
""") == [1, "utf8mb4", "+00:00"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"SOC_WEB_PORT": "99999"}, "SOC_WEB_PORT is not a port"),
        ({"SOC_SMTP_HOST": ""}, "SOC_SMTP_HOST is missing"),
    ],
)
def test_a_container_with_a_bad_environment_stops_with_a_message(
    stack: Stack, change: dict[str, str], message: str
) -> None:
    options = [part for name, value in change.items() for part in ("-e", f"{name}={value}")]
    answer = stack.compose(
        "run", "--rm", "--no-deps", *options, "beat", "python3", "manage.py", "check", check=False
    )
    assert message in answer


def test_make_up_refuses_a_bad_env_file_and_lists_everything(stack: Stack) -> None:
    good = stack.env_file.read_text()
    try:
        stack.env_file.write_text(good.replace("SOC_PIDS=200", "SOC_PIDZ=200"))
        stack.env_file.chmod(0o644)
        answer = stack.make("up", check=False)
    finally:
        stack.env_file.write_text(good)
        stack.env_file.chmod(0o600)
    assert "SOC_PIDZ is unknown; is SOC_PIDS meant?" in answer
    assert "SOC_PIDS is missing" in answer
    assert "can be read by others" in answer


def test_make_up_names_a_port_that_is_in_use(stack: Stack) -> None:
    other = Stack(stack.folder, new_name(), web_port=stack.web_port)
    other.create()
    try:
        answer = other.make("up", check=False)
    finally:
        other.remove()
        run("ln", "-sfn", f"env/{stack.site}.env", ".env", cwd=stack.folder)
    assert f"SOC_WEB_PORT={stack.web_port} cannot be used" in answer
    assert f"choose another in env/{other.site}.env" in answer


def test_a_site_that_nobody_made_is_not_started(stack: Stack) -> None:
    answer = Stack(stack.folder, "vancuver").make("up", check=False)
    assert "`make site SITE=vancuver` creates it" in answer


def test_an_engine_without_compose_is_told_so(stack: Stack, tmp_path_factory) -> None:  # noqa: ANN001
    """A `docker` that knows no compose stands in for the engine package without the plugin."""
    folder = tmp_path_factory.mktemp("bin")
    docker = folder / "docker"
    docker.write_text('#!/bin/sh\n[ "$1" = info ] || { echo "unknown command" >&2; exit 1; }\n')
    docker.chmod(0o755)
    answer = run(
        "sh",
        "-c",
        f"PATH={folder}:$PATH docker/containers/preflight",
        cwd=stack.folder,
        check=False,
    )
    assert "this Docker has no Compose v2: install" in answer
