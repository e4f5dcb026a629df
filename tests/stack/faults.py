"""Things to break on a site in containers, each with its repair and what doctor is to say of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from harness import Stack, run, wait_for
from soc.provision import environment

USER = "soc_worker_email"
TABLE = "a_table_that_cannot_be_read"
CATCHER_PORT = "2525"

# Greets, offers logins and takes none (RFC 4954, 6: 535).
REFUSES_LOGINS = """
import socketserver
class Session(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"220 relay\\r\\n")
        for line in self.rfile:
            word = line[:4].upper()
            self.wfile.write(
                b"250-relay\\r\\n250 AUTH PLAIN LOGIN\\r\\n" if word == b"EHLO" else
                b"535 5.7.8 no\\r\\n" if word == b"AUTH" else b"250 OK\\r\\n")
socketserver.ThreadingTCPServer(("", 2525), Session).serve_forever()
"""


class Break(Protocol):
    """Breaks something for the time of a with statement."""

    def __call__(self, stack: Stack) -> AbstractContextManager[None]: ...


@dataclass(frozen=True)
class Fault:
    """What is broken, and a part of the line by which doctor is to name it."""

    name: str
    expected: str
    broken: Break


def as_root(stack: Stack, sql: str) -> str:
    """Run SQL as the root of the database."""
    script = "MYSQL_PWD=$(cat /run/site/root_password) mariadb --user=root --protocol=socket -N soc"
    return stack.compose("exec", "-T", "mariadb", "sh", "-c", script, stdin=sql)


def image_of(stack: Stack) -> str:
    """Return the name of the site's own image."""
    return environment.parse(stack.env_file.read_text())[0]["APP_IMAGE"]


def on_files(stack: Stack, *command: str) -> str:
    """Run a command as root in the folder of the site's files."""
    return run(
        "docker", "run", "--rm", "--user=0", "--network=none", f"--workdir=/env/{stack.site}",
        f"--volume={stack.folder}/env:/env", "--env=PYTHONPATH=/app", image_of(stack), *command,
    )  # fmt: skip


def ctl(stack: Stack, *command: str) -> str:
    """Run rabbitmqctl."""
    return stack.exec("rabbitmq", "rabbitmqctl", "-q", *command)


def again(stack: Stack, *services: str) -> None:
    """Start services as the site's files say now."""
    stack.compose("up", "--detach", "--wait", "--no-deps", *services)


# --- Forms that several faults have ---------------------------------------------------------------


def sql(breaks: str, mends: str) -> Break:
    """Break and mend by SQL."""

    @contextmanager
    def broken(stack: Stack) -> Iterator[None]:
        as_root(stack, breaks)
        try:
            yield
        finally:
            as_root(stack, mends)

    return broken


def stopped(service: str) -> Break:
    """Stop a service."""

    @contextmanager
    def broken(stack: Stack) -> Iterator[None]:
        stack.compose("stop", service)
        try:
            yield
        finally:
            again(stack, service)

    return broken


def unknown_to_broker(*command: str, restarts: str = "") -> Break:
    """Take something from the broker that its definitions have."""

    @contextmanager
    def broken(stack: Stack) -> Iterator[None]:
        ctl(stack, *command)
        try:
            yield
        finally:
            ctl(stack, "import_definitions", "/run/site/definitions.json")
            if restarts:
                stack.compose("restart", restarts)

    return broken


def limit(command: str, *values: str, back: str) -> Break:
    """Set a limit of the broker that is exceeded at once."""

    @contextmanager
    def broken(stack: Stack) -> Iterator[None]:
        ctl(stack, command, *values)
        try:
            yield
        finally:
            ctl(stack, command, back)

    return broken


def files(script: str) -> Break:
    """Change the site's files; a copy takes their place afterwards."""

    @contextmanager
    def broken(stack: Stack) -> Iterator[None]:
        on_files(stack, "sh", "-c", f"cp -a /env/{stack.site} /env/.kept && {script}")
        try:
            yield
        finally:
            put_back = (
                f"cp -a /env/.kept/. /env/{stack.site}/ && rm -r /env/.kept && rm -f web/own*"
            )
            on_files(stack, "sh", "-c", put_back)

    return broken


def env_file(**values: str) -> Break:
    """Change the env file and nothing else."""

    @contextmanager
    def broken(stack: Stack) -> Iterator[None]:
        text = stack.env_file.read_text()
        stack.set(**values)
        try:
            yield
        finally:
            stack.env_file.write_text(text)

    return broken


def certificate(service: str, lifetime: str) -> str:
    """Return a script that gives a service a certificate of a lifetime (Python)."""
    return f"""python3 -c '
from datetime import timedelta; from pathlib import Path; from soc.provision import pki
ca = pki.KeyPair.load(Path("ca/ca.pem"), Path("ca/ca.key"))
names = ["{service}", "localhost", "127.0.0.1"]
made = pki.issue(ca, "{service}", names, timedelta({lifetime}))
Path("{service}/cert.pem").write_bytes(made.certificate_pem)
Path("{service}/key.pem").write_bytes(made.key_pem)'"""


# --- Faults of one kind ---------------------------------------------------------------------------


@contextmanager
def wrong_password(stack: Stack) -> Iterator[None]:
    """Name a relay that takes no login."""
    name = f"{stack.project}-refuses"
    network = f"--network={stack.project}_egress"
    script = ("python3", "-c", REFUSES_LOGINS)
    run("docker", "run", "--detach", f"--name={name}", network, image_of(stack), *script)
    on_files(
        stack, "sh", "-c", "echo wrong >worker-email/smtp_password && chown 999 worker-email/*"
    )
    text = stack.env_file.read_text()
    stack.set(SOC_SMTP_HOST=name, SOC_SMTP_USER="soc", SOC_SMTP_SECURITY="none")
    try:
        again(stack, "worker-email")
        yield
    finally:
        stack.env_file.write_text(text)
        again(stack, "worker-email")
        run("docker", "rm", "--force", name)


@contextmanager
def unknown_relay(stack: Stack) -> Iterator[None]:
    """Name a relay that no DNS knows."""
    text = stack.env_file.read_text()
    stack.set(SOC_SMTP_HOST="nowhere.invalid")
    try:
        again(stack, "worker-email")
        yield
    finally:
        stack.env_file.write_text(text)
        again(stack, "worker-email")


@contextmanager
def no_consumer(stack: Stack) -> Iterator[None]:
    """Have a worker leave its queue, as Flower can."""
    worker = f"email@{stack.inspect('worker-email')['Config']['Hostname']}"
    control = "from soc.runtime.celery import app\napp.control.{}('email', destination=[{!r}])"
    wait_for("Flower to know it", lambda: worker in stack.flower("/api/workers?refresh=1")[1])
    stack.python("flower", control.format("cancel_consumer", worker))
    wait_for("its end", lambda: stack.queues()["email"]["consumers"] == 0)
    try:
        yield
    finally:
        stack.python("flower", control.format("add_consumer", worker))


@contextmanager
def removed(stack: Stack) -> Iterator[None]:
    """Remove a container."""
    run("docker", "rm", "--force", stack.container("flower"))
    try:
        yield
    finally:
        again(stack, "flower")


@contextmanager
def paused(stack: Stack) -> Iterator[None]:
    """Pause a container."""
    run("docker", "pause", stack.container("beat"))
    try:
        yield
    finally:
        run("docker", "unpause", stack.container("beat"))


@contextmanager
def frozen(stack: Stack) -> Iterator[None]:
    """Stop every process of a worker, until its health check has seen it."""
    service = "worker-shared"
    for name in ("STOP", "CONT"):
        stack.exec(service, "sh", "-c", f"kill -{name} -1 || true")
        run("docker", "kill", f"--signal={name}", stack.container(service))
        if name == "STOP":
            wait_for("unhealthy", lambda: stack.health(service) == "unhealthy", seconds=120)
            yield
    wait_for("healthy", lambda: stack.health(service) == "healthy", seconds=120)


@contextmanager
def not_loaded(stack: Stack) -> Iterator[None]:
    """Renew MariaDB's certificate without having it loaded."""
    on_files(stack, "sh", "-c", certificate("mariadb", "397") + " && chown 999 mariadb/*")
    try:
        yield
    finally:
        stack.make("certs")


@contextmanager
def another_image(stack: Stack) -> Iterator[None]:
    """Give the name of the site's image to another one."""
    image = image_of(stack)
    present = stack.inspect("web")["Image"]
    run(
        "docker",
        "build",
        "--quiet",
        f"--tag={image}",
        "-",
        stdin=f"FROM {image}\nLABEL other=yes\n",
    )
    try:
        yield
    finally:
        run("docker", "tag", present, image)


@contextmanager
def readable(stack: Stack) -> Iterator[None]:
    """Let others read the env file."""
    stack.env_file.chmod(0o644)
    try:
        yield
    finally:
        stack.env_file.chmod(0o600)


@contextmanager
def few_connections(stack: Stack) -> Iterator[None]:
    """Fill the connections that the database allows."""
    most = as_root(stack, "SELECT @@max_connections").strip()
    used = as_root(stack, "SELECT COUNT(*) FROM information_schema.processlist").strip()
    as_root(stack, f"SET GLOBAL max_connections = {max(10, int(used))}")
    sleeper = "MYSQL_PWD=$(cat /run/site/root_password) mariadb --user=root --protocol=socket"
    for _ in range(max(0, 10 - int(used))):
        stack.compose("exec", "-d", "mariadb", "sh", "-c", f"{sleeper} -e 'SELECT SLEEP(20)'")
    try:
        yield
    finally:
        as_root(stack, f"SET GLOBAL max_connections = {most}")


@contextmanager
def old_backup(stack: Stack) -> Iterator[None]:
    """Leave a backup of ten days ago."""
    archive = stack.folder / "backups" / f"soc-{stack.site}-20200101T000000Z.tar"
    archive.parent.mkdir(exist_ok=True)
    archive.touch()
    run("touch", "--date=10 days ago", str(archive))
    try:
        yield
    finally:
        archive.unlink()


FAULTS = (
    Fault("wrong SMTP password", "refuses the login of soc", wrong_password),
    Fault("relay's name unknown", "no DNS knows nowhere.invalid", unknown_relay),
    Fault("relay stopped", "catcher is exited", stopped("catcher")),
    Fault(
        "broker user deleted",
        "lacks the user worker-ldap-probe",
        unknown_to_broker("delete_user", "worker-ldap-probe", restarts="worker-ldap-probe"),
    ),
    Fault(
        "broker permissions changed",
        "another configure and write and read for the permission worker-email",
        unknown_to_broker("set_permissions", "worker-email", "^$", "^$", "^$"),
    ),
    Fault(
        "topic permission cleared",
        "lacks the topic permission beat",
        unknown_to_broker("clear_topic_permissions", "beat"),
    ),
    Fault(
        "queue deleted",
        "lacks the queue ldap_probe",
        unknown_to_broker("delete_queue", "ldap_probe", restarts="worker-ldap-probe"),
    ),
    Fault("policy cleared", "lacks the policy email", unknown_to_broker("clear_policy", "email")),
    Fault("queue without consumer", "the queue email has no consumer", no_consumer),
    Fault(
        "memory alarm",
        "the memory alarm",
        limit("set_vm_memory_high_watermark", "absolute", "1MB", back="0.6"),
    ),
    Fault("disk alarm", "the disk alarm", limit("set_disk_free_limit", "9000GB", back="200MB")),
    *(
        Fault(f"{service} stopped", f"{service} is exited", stopped(service))
        for service in ("mariadb", "rabbitmq", "beat", "web", "worker-events")
    ),
    Fault("container removed", "flower has no container", removed),
    Fault("beat paused", "beat is paused", paused),
    Fault("worker hangs", "worker-shared is unhealthy", frozen),
    Fault(
        "corrupt table",
        TABLE,
        sql(
            f"CREATE TABLE {TABLE} (id INT); ALTER TABLE {TABLE} DISCARD TABLESPACE;",
            f"DROP TABLE {TABLE}",
        ),
    ),
    Fault(
        "database user gone",
        f"does not know {USER}",
        sql(f"RENAME USER {USER}@'%' TO kept@'%'", f"RENAME USER kept@'%' TO {USER}@'%'"),
    ),
    Fault(
        "certificate not asked for",
        "does not ask soc_web for the certificate of web",
        sql(
            "ALTER USER soc_web@'%' REQUIRE SSL", "ALTER USER soc_web@'%' REQUIRE SUBJECT '/CN=web'"
        ),
    ),
    Fault(
        "database read only",
        "read_only is on",
        sql("SET GLOBAL read_only = 1", "SET GLOBAL read_only = 0"),
    ),
    Fault(
        "migrations missing",
        "notify.0001_initial",
        sql(
            "UPDATE django_migrations SET app = 'x' WHERE app = 'notify' AND name = '0001_initial'",
            "UPDATE django_migrations SET app = 'notify' WHERE app = 'x'",
        ),
    ),
    Fault(
        "migration interrupted",
        "a migration stopped in the middle",
        sql("CREATE TABLE soc_migration_test (id INT)", "DROP TABLE soc_migration_test"),
    ),
    Fault("connections used up", "connections are in use", few_connections),
    Fault("certificate not loaded", "mariadb presents another certificate", not_loaded),
    Fault(
        "certificate near its end",
        "web/cert.pem expires in 1 days",
        files(certificate("web", "2")),
    ),
    Fault(
        "certificate expired",
        "beat/cert.pem expired on",
        files(certificate("beat", "0, 1") + " && sleep 2"),
    ),
    Fault(
        "own certificate without key",
        "own-key.pem is not",
        files("cp web/cert.pem web/own-cert.pem"),
    ),
    Fault("weak secret", "is weak", files("echo secret >beat/secret_key")),
    Fault("key file missing", "web/key.pem is missing", files("rm web/key.pem")),
    Fault(
        "sealing keys differ", "different sealing keys", files("echo other >>migrate/sealing_keys")
    ),
    Fault("env file readable", "can be read by others", readable),
    Fault("bad value", "SOC_WEB_PORT", env_file(SOC_WEB_PORT="0")),
    Fault("value missing", "SOC_MAIL_FROM is missing", env_file(SOC_MAIL_FROM="")),
    Fault("another image", "another version runs", another_image),
    Fault(
        "configuration drift",
        "changed since the last `make up`",
        env_file(SOC_WORKER_MEMORY="400M"),
    ),
    Fault(
        "clock went back",
        "the clock went back",
        sql(
            "INSERT INTO core_heartbeat (service, instance, seen_at)"
            " VALUES ('x', 'x', NOW() + INTERVAL 1 DAY)",
            "DELETE FROM core_heartbeat WHERE service = 'x'",
        ),
    ),
    Fault(
        "subscriptions disabled",
        "no subscription is enabled",
        sql(
            "UPDATE notify_subscription SET enabled = 0",
            "UPDATE notify_subscription SET enabled = 1",
        ),
    ),
    Fault(
        "schedule disabled",
        "schedules are disabled",
        sql(
            "UPDATE django_celery_beat_periodictask SET enabled = 0 ORDER BY id LIMIT 1",
            "UPDATE django_celery_beat_periodictask SET enabled = 1",
        ),
    ),
    Fault(
        "dead letter",
        "1 dead letters of email",
        sql(
            "INSERT INTO core_deadtask (queue, digest, task, task_id, body, reason, times, state,"
            " first_seen_at, last_seen_at, settled_by, note) VALUES ('email', 'x', 'x', 'x', '',"
            " 'rejected', 1, 'waiting', NOW(), NOW(), '', '')",
            "DELETE FROM core_deadtask WHERE digest = 'x'",
        ),
    ),
    Fault("old backup", "is 10 days old", old_backup),
)
