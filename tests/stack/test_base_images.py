"""The base images, public or stand-ins, keep the contract of docs/base-images.md."""

from __future__ import annotations

import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

HARDENED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=none")
HEALTH = ("--health-interval=1s", "--health-timeout=3s", "--health-retries=2")
# Quotes and backslashes: whatever handles the password has to quote it well.
ROOT_PASSWORD = 'root\'s \\ "word" $HOME'
APP_PASSWORD = 'app\'s \\ "word" $HOME'


def docker(
    *arguments: str, check: bool = True, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        ["docker", *arguments], input=stdin, capture_output=True, text=True, timeout=180
    )
    if check and result.returncode != 0:
        raise AssertionError(f"docker {' '.join(arguments)}: {result.stdout}{result.stderr}")
    return result


@pytest.fixture
def stand_in(images: dict[str, str]) -> None:
    if not images["mariadb"].startswith("soc-offline/"):
        pytest.skip("the public image does not promise this")


class Sandbox:
    """Containers and volumes that vanish together."""

    def __init__(self, files: Path) -> None:
        self.prefix = f"soc-test-{uuid.uuid4().hex[:12]}"
        self.files = files
        self.containers: list[str] = []
        self.volumes: list[str] = []

    def volume(self) -> str:
        name = f"{self.prefix}-{len(self.volumes)}"
        docker("volume", "create", name)
        self.volumes.append(name)
        return name

    def start(self, *arguments: str) -> str:
        name = f"{self.prefix}-{len(self.containers)}"
        self.containers.append(name)
        docker("run", "--detach", f"--name={name}", *HARDENED, *arguments)
        return name

    def folder(self, name: str, **contents: str) -> Path:
        """A folder that the container's user can read; in a key, _ stands for the file's dot."""
        folder = self.files / name
        folder.mkdir()
        for file_name, text in contents.items():
            (folder / file_name.replace("_", ".")).write_text(text)
        folder.chmod(0o755)
        return folder

    def remove(self) -> None:
        for container in self.containers:
            docker("rm", "--force", "--volumes", container, check=False)
        for volume in self.volumes:
            docker("volume", "rm", "--force", volume, check=False)


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    sandbox = Sandbox(tmp_path)
    yield sandbox
    sandbox.remove()


@pytest.fixture(scope="module")
def shared_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    sandbox = Sandbox(tmp_path_factory.mktemp("shared"))
    yield sandbox
    sandbox.remove()


def inspect(container: str, path: str) -> str:
    return docker("inspect", f"--format={{{{{path}}}}}", container).stdout.strip()


def wait_for_health(container: str, wanted: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while (status := inspect(container, ".State.Health.Status")) != wanted:
        running = inspect(container, ".State.Running") == "true"
        if not running or time.monotonic() > deadline:
            logs = docker("logs", "--tail=30", container)
            raise AssertionError(f"{status}, not {wanted}: {logs.stdout}{logs.stderr}")
        time.sleep(0.2)


def wait_for_exit(container: str) -> tuple[int, str]:
    code = int(docker("wait", container).stdout)
    logs = docker("logs", container)
    return code, logs.stdout + logs.stderr


def assert_confined(container: str) -> None:
    status = docker("exec", container, "cat", "/proc/1/status").stdout
    fields = dict(line.split(":", 1) for line in status.splitlines())
    assert fields["Uid"].split() == ["999"] * 4
    assert fields["Gid"].split() == ["999"] * 4
    assert int(fields["CapEff"], 16) == 0
    assert fields["NoNewPrivs"].strip() == "1"
    assert docker("exec", container, "touch", "/etc/probe", check=False).returncode != 0


def assert_stops_in_time(container: str) -> None:
    docker("stop", "--time=30", container)
    assert inspect(container, ".State.ExitCode") == "0"


def assert_freeze_is_noticed(container: str) -> None:
    docker("kill", "--signal=STOP", container)
    wait_for_health(container, "unhealthy")
    docker("kill", "--signal=CONT", container)
    wait_for_health(container, "healthy")


def make_certificate(folder: Path, name: str) -> None:
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *(
                "-nodes",
                "-days",
                "2",
                "-subj",
                f"/CN={name}",
                "-addext",
                f"subjectAltName=DNS:{name}",
            ),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")),
        ],
        check=True,
        capture_output=True,
    )
    (folder / "key.pem").chmod(0o644)


# --- MariaDB ---

MARIADB_CONFIG = """
[mariadbd]
ssl_cert = /secrets/cert.pem
ssl_key = /secrets/key.pem
require_secure_transport = ON
"""
FIRST_SCRIPT = """
MYSQL_PWD=$MARIADB_ROOT_PASSWORD mariadb --user=root soc --execute='CREATE TABLE runs (n int)'
"""
SECOND_SCRIPT = "INSERT INTO runs VALUES (1);"


def mariadb_options(image: str, volume: str, *more: str) -> list[str]:
    return [
        *("--user=mysql", "--tmpfs=/tmp", "--tmpfs=/run/mysqld:uid=999,gid=999,mode=0755"),
        *("--health-cmd=healthcheck.sh --connect --innodb_initialized", *HEALTH),
        *(f"--volume={volume}:/var/lib/mysql", "--env=MARIADB_ROOT_HOST=localhost", *more),
        image,
    ]


def start_mariadb(sandbox: Sandbox, image: str, volume: str, *more: str) -> str:
    return sandbox.start(
        *mariadb_options(image, volume, f"--env=MARIADB_ROOT_PASSWORD={ROOT_PASSWORD}", *more)
    )


def sql(container: str, statement: str, user: str = "root", password: str = ROOT_PASSWORD) -> str:
    options = ["--batch", "--skip-column-names", f"--user={user}", "--database=soc"]
    tcp = ["--host=127.0.0.1", "--protocol=tcp", "--disable-ssl-verify-server-cert"]
    client = ["mariadb", *options, *(tcp if user != "root" else [])]
    environment = ["--interactive", f"--env=MYSQL_PWD={password}"]
    return docker("exec", *environment, container, *client, stdin=statement).stdout.strip()


@pytest.fixture(scope="module")
def mariadb(images: dict[str, str], shared_sandbox: Sandbox) -> str:
    secrets = shared_sandbox.folder(
        "mariadb-secrets", root=f"{ROOT_PASSWORD}\n", app=f"{APP_PASSWORD}\n"
    )
    make_certificate(secrets, "mariadb")
    scripts = shared_sandbox.folder(
        "initdb", **{"10-first_sh": FIRST_SCRIPT, "20-second_sql": SECOND_SCRIPT}
    )
    config = shared_sandbox.folder("mariadb-conf", **{"site_cnf": MARIADB_CONFIG})
    container = shared_sandbox.start(
        *mariadb_options(
            images["mariadb"],
            shared_sandbox.volume(),
            f"--volume={secrets}:/secrets:ro",
            f"--volume={scripts}:/docker-entrypoint-initdb.d:ro",
            f"--volume={config}:/etc/mysql/conf.d:ro",
            "--env=MARIADB_ROOT_PASSWORD_FILE=/secrets/root",
            "--env=MARIADB_PASSWORD_FILE=/secrets/app",
            "--env=MARIADB_DATABASE=soc",
            "--env=MARIADB_USER=app",
        )
    )
    wait_for_health(container, "healthy")
    return container


def test_mariadb_runs_confined(mariadb: str) -> None:
    assert_confined(mariadb)


def test_mariadb_lets_nobody_in_without_a_password(mariadb: str) -> None:
    for user in ("root", "app", "mysql", "healthcheck"):
        for route in ("--protocol=socket", "--host=127.0.0.1"):
            client = ("mariadb", f"--user={user}", route, "--skip-ssl-verify-server-cert")
            answer = docker("exec", mariadb, *client, "--execute=SELECT 1", check=False)
            assert "Access denied" in answer.stderr, (user, route)


def test_mariadb_loads_time_zones(mariadb: str) -> None:
    shifted = sql(mariadb, "SELECT CONVERT_TZ('2025-07-01 12:00', 'UTC', 'America/Vancouver')")
    assert shifted == "2025-07-01 05:00:00"


def test_mariadb_speaks_tls_only(mariadb: str) -> None:
    version = sql(mariadb, "SHOW STATUS LIKE 'Ssl_version'", "app", APP_PASSWORD)
    assert version.split()[1] in {"TLSv1.2", "TLSv1.3"}
    plain = ("mariadb", "--user=app", "--host=127.0.0.1", "--skip-ssl", "--execute=SELECT 1")
    refused = docker("exec", f"--env=MYSQL_PWD={APP_PASSWORD}", mariadb, *plain, check=False)
    assert refused.returncode != 0


@pytest.mark.usefixtures("stand_in")
def test_mariadb_drops_the_passwords_after_use(mariadb: str) -> None:
    environment = docker("exec", mariadb, "cat", "/proc/1/environ").stdout
    assert ROOT_PASSWORD not in environment
    assert APP_PASSWORD not in environment


def test_mariadb_freeze_makes_it_unhealthy(mariadb: str) -> None:
    assert_freeze_is_noticed(mariadb)


def test_mariadb_second_start_keeps_the_data_and_runs_no_script(mariadb: str) -> None:
    sql(mariadb, "INSERT INTO runs VALUES (2)", "app", APP_PASSWORD)
    assert_stops_in_time(mariadb)
    docker("start", mariadb)
    wait_for_health(mariadb, "healthy")
    assert sql(mariadb, "SELECT GROUP_CONCAT(n ORDER BY n) FROM runs") == "1,2"


def test_mariadb_needs_a_root_password(images: dict[str, str], sandbox: Sandbox) -> None:
    options = mariadb_options(images["mariadb"], sandbox.volume())
    code, logs = wait_for_exit(sandbox.start(*options))
    assert code != 0
    assert "MARIADB_ROOT_PASSWORD" in logs


@pytest.mark.usefixtures("stand_in")
def test_mariadb_starts_over_after_a_failed_first_start(
    images: dict[str, str], sandbox: Sandbox
) -> None:
    volume = sandbox.volume()
    scripts = sandbox.folder(
        "broken", **{"10-broken_sql": "CREATE TABLE leftover (n int); BROKEN;"}
    )
    broken = start_mariadb(
        sandbox,
        images["mariadb"],
        volume,
        f"--volume={scripts}:/docker-entrypoint-initdb.d:ro",
        "--env=MARIADB_DATABASE=soc",
    )
    assert wait_for_exit(broken)[0] != 0
    repaired = start_mariadb(sandbox, images["mariadb"], volume, "--env=MARIADB_DATABASE=soc")
    wait_for_health(repaired, "healthy")
    assert sql(repaired, "SHOW TABLES") == ""


def test_mariadb_upgrades_when_asked(images: dict[str, str], sandbox: Sandbox) -> None:
    volume = sandbox.volume()
    first = start_mariadb(sandbox, images["mariadb"], volume)
    wait_for_health(first, "healthy")
    info = "/var/lib/mysql/mariadb_upgrade_info"
    series = docker("exec", first, "cat", info).stdout.rsplit(".", 1)[0]
    docker("exec", first, "sh", "-c", f"printf 11.4.2-MariaDB >{info}")
    assert_stops_in_time(first)
    second = start_mariadb(sandbox, images["mariadb"], volume, "--env=MARIADB_AUTO_UPGRADE=1")
    wait_for_health(second, "healthy")
    assert docker("exec", second, "cat", info).stdout.rsplit(".", 1)[0] == series


# --- RabbitMQ ---

RABBITMQ_CONFIG = """
log.console = true
log.file = false
listeners.tcp = none
listeners.ssl.default = 5671
ssl_options.cacertfile = /secrets/cert.pem
ssl_options.certfile = /secrets/cert.pem
ssl_options.keyfile = /secrets/key.pem
management.ssl.port = 15671
management.ssl.certfile = /secrets/cert.pem
management.ssl.keyfile = /secrets/key.pem
"""
# A TLS handshake costs a fiftieth of the CPU that rabbitmq-diagnostics takes to start.
RABBITMQ_HEALTH = (
    "openssl s_client -brief -connect localhost:5671 -CAfile /secrets/cert.pem"
    " -verify_return_error -verify_hostname rabbitmq"
)


@pytest.fixture(scope="module", params=["configured", "other"])
def rabbitmq_image(request: pytest.FixtureRequest, images: dict[str, str]) -> str:
    if request.param == "configured":
        return images["rabbitmq"]
    return request.getfixturevalue("other_rabbitmq")


@pytest.fixture(scope="module")
def rabbitmq(rabbitmq_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    sandbox = Sandbox(tmp_path_factory.mktemp("rabbitmq"))
    secrets = sandbox.folder("secrets")
    make_certificate(secrets, "rabbitmq")
    config = sandbox.folder("conf", site_conf=RABBITMQ_CONFIG)
    plugins = sandbox.folder("plugins", enabled="[rabbitmq_management].")
    container = sandbox.start(
        *("--user=rabbitmq", "--tmpfs=/tmp", f"--volume={sandbox.volume()}:/var/lib/rabbitmq"),
        *(f"--volume={secrets}:/secrets:ro", f"--volume={config}:/etc/rabbitmq/conf.d:ro"),
        f"--volume={plugins / 'enabled'}:/etc/rabbitmq/enabled_plugins:ro",
        "--env=RABBITMQ_NODENAME=rabbit@localhost",
        *(f"--health-cmd={RABBITMQ_HEALTH}", *HEALTH),
        rabbitmq_image,
    )
    try:
        wait_for_health(container, "healthy")
        yield container
    finally:
        sandbox.remove()


def test_rabbitmq_runs_confined(rabbitmq: str) -> None:
    assert_confined(rabbitmq)


def test_rabbitmq_listens_as_configured(rabbitmq: str) -> None:
    listeners = docker("exec", rabbitmq, "rabbitmq-diagnostics", "--quiet", "listeners").stdout
    assert "port: 5671, protocol: amqp/ssl" in listeners
    assert "port: 15671, protocol: https" in listeners
    assert "port: 5672" not in listeners


def test_rabbitmq_logs_to_the_console(rabbitmq: str) -> None:
    logs = docker("logs", rabbitmq)
    assert "started TLS (SSL) listener" in logs.stdout + logs.stderr


def test_rabbitmq_makes_a_private_cookie(rabbitmq: str) -> None:
    cookie = "/var/lib/rabbitmq/.erlang.cookie"
    assert docker("exec", rabbitmq, "stat", "--format=%a %u", cookie).stdout.split() == [
        "400",
        "999",
    ]
    image = inspect(rabbitmq, ".Config.Image")
    in_image = docker("run", "--rm", "--entrypoint=test", image, "-e", cookie, check=False)
    assert in_image.returncode == 1


def test_rabbitmq_freeze_makes_it_unhealthy(rabbitmq: str) -> None:
    assert_freeze_is_noticed(rabbitmq)


def test_rabbitmq_second_start_keeps_the_data(rabbitmq: str) -> None:
    docker("exec", rabbitmq, "rabbitmqctl", "--quiet", "add_vhost", "kept")
    assert_stops_in_time(rabbitmq)
    docker("start", rabbitmq)
    wait_for_health(rabbitmq, "healthy")
    vhosts = docker("exec", rabbitmq, "rabbitmqctl", "--quiet", "list_vhosts").stdout
    assert "kept" in vhosts.split()


@pytest.mark.parametrize(
    "variable",
    [
        "RABBITMQ_SSL_CERTFILE",
        "RABBITMQ_MANAGEMENT_SSL_KEYFILE",
        "RABBITMQ_VM_MEMORY_HIGH_WATERMARK",
    ],
)
def test_rabbitmq_refuses_old_variables(
    sandbox: Sandbox, rabbitmq_image: str, variable: str
) -> None:
    started = sandbox.start("--user=rabbitmq", f"--env={variable}=x", rabbitmq_image)
    code, logs = wait_for_exit(started)
    assert code != 0
    assert variable in logs


# --- Python ---


class Interpreter:
    """The Python image, one container a command."""

    def __init__(self, image: str) -> None:
        self.image = image

    def run(self, *arguments: str) -> str:
        options = ("--rm", *HARDENED, "--user=12345:12345", "--tmpfs=/tmp:exec")
        return docker("run", *options, self.image, *arguments).stdout.strip()


@pytest.fixture
def python(images: dict[str, str]) -> Interpreter:
    return Interpreter(images["python"])


def test_python_is_the_agreed_series(python: Interpreter) -> None:
    assert python.run("python3", "--version").startswith("Python 3.13.")
    assert inspect(python.image, "index .Config.Cmd 0") == "python3"


def test_python_makes_a_virtual_environment_without_a_network(python: Interpreter) -> None:
    make = "python3 -m venv /tmp/v && /tmp/v/bin/python -c 'import sqlite3' && /tmp/v/bin/pip -V"
    assert "python 3.13" in python.run("sh", "-c", make)


def test_python_trusts_the_public_authorities(python: Interpreter) -> None:
    count = "import ssl; print(len(ssl.create_default_context().get_ca_certs()))"
    assert int(python.run("python3", "-c", count)) > 100


def test_python_knows_the_time_zones(python: Interpreter) -> None:
    zone = "import zoneinfo; print(zoneinfo.ZoneInfo('America/Vancouver'))"
    assert python.run("python3", "-c", zone) == "America/Vancouver"
