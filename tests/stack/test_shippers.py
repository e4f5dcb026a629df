"""Shippers with the folders that `make shipper` writes: real clients, and what revoking ends."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import REPOSITORY, Stack, has_image, missing, run, wait_for
from winlogbeat import body, of_8

HERE = REPOSITORY / "tests" / "stack" / "shippers"
BASES = ("debian:trixie", "soc-offline/debian:trixie")
KINDS = {"java": "logstash", "syslog": "syslog-ng", "node": "amqplib", "tools": "other"}
PROVIDER = "ControlUp Logon Monitor"

pytestmark = pytest.mark.drill


@pytest.fixture(scope="module")
def image() -> str:
    """An image with every client."""
    base = os.environ.get("DEBIAN_IMAGE") or next(filter(has_image, BASES), BASES[0])
    return run(
        "docker", "build", "--quiet", "--network=host", f"--build-arg=BASE={base}", str(HERE)
    ).strip()


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where Node finds amqplib."""
    if shutil.which("npm") is None:
        missing("npm is not installed")
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, folder)
    run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=folder)
    return folder / "node_modules"


@pytest.fixture(scope="module")
def made(stack: Stack) -> Iterator[None]:
    """A shipper of each kind."""
    for name, kind in KINDS.items():
        stack.make("shipper", f"NAME={name}", f"KIND={kind}")
    yield
    for name in KINDS:
        stack.make("shipper", f"NAME={name}", "REVOKE=1", check=False)


def folder(stack: Stack, name: str) -> Path:
    return stack.folder / "env" / stack.site / "shippers" / name


def client(stack: Stack, image: str, name: str, *options: str) -> list[str]:
    """Return the command of a container that has a shipper's folder, as its owner."""
    return [
        "docker", "run", "--rm", "--interactive", "--user=1000:1000", "--tmpfs=/tmp",
        f"--network={stack.project}_data", f"--volume={folder(stack, name)}:/run/shipper:ro",
        *options, image,
    ]  # fmt: skip


def document(host: str) -> str:
    return body(of_8({"provider_name": PROVIDER}, host={"name": host})).decode()


def messages(stack: Stack, name: str) -> list[dict[str, Any]]:
    """Return a shipper's last messages as its page has them, the latest first."""
    return stack.data(f"""
from soc.events.models import ShipperMessage
found = ShipperMessage.objects.filter(shipper__name={name!r})
answer = [{{"accepted": m.accepted, "outcome": m.outcome, "text": m.text}} for m in found]
""")


def shown(stack: Stack, name: str, outcome: str) -> dict[str, Any]:
    """Wait for a message whose outcome begins so."""

    def found() -> dict[str, Any] | None:
        all_of_it = messages(stack, name)
        return next((one for one in all_of_it if one["outcome"].startswith(outcome)), None)

    return wait_for(f"a message of {name}", found)


@pytest.mark.usefixtures("made")
def test_javas_client_publishes_with_the_folder_of_logstash(stack: Stack, image: str) -> None:
    text = document("java-host")
    script = (
        "cd /shippers && "
        "user=$(sed -n 's/.*user => \"\\(.*\\)\".*/\\1/p' /run/shipper/pipeline.conf) && "
        "exec java -XX:TieredStopAtLevel=1 -cp /usr/share/java/amqp-client.jar:"
        "/usr/share/java/slf4j-api.jar Publish.java /run/shipper/java.p12 "
        '"$(cat /run/shipper/password)" "$user" shipper.java "$0"'
    )
    told = run(*client(stack, image, "java"), "sh", "-c", script, text)
    assert "published" in told
    message = shown(stack, "java", "accepted")
    assert message["text"] == text, "as it came"
    assert "of java-host" in message["outcome"]


@pytest.mark.usefixtures("made")
def test_syslog_ng_publishes_with_its_configuration(stack: Stack, image: str) -> None:
    text = document("syslog-host")
    name = f"{stack.project}-syslog"
    command = client(stack, image, "syslog", f"--name={name}", "--detach")
    command.remove("--interactive")
    daemon = (
        *("syslog-ng", "--foreground", "--cfgfile=/run/shipper/syslog-ng.conf", "--no-caps"),
        *("--persist-file=/tmp/persist", "--pidfile=/tmp/pid", "--control=/tmp/control"),
    )
    run(*command, *daemon)
    send = 'exec 3<>/dev/tcp/127.0.0.1/5140 && printf "%s\\n" "$0" >&3'
    try:

        def sent() -> bool:
            run("docker", "exec", name, "bash", "-c", send, text)
            return True

        wait_for("syslog-ng", lambda: _quietly(sent))
        shown(stack, "syslog", "accepted")
    finally:
        print(run("docker", "logs", name, check=False))
        run("docker", "rm", "--force", name, check=False)


def _quietly(act: Any) -> bool:
    try:
        return act()
    except AssertionError:
        return False


@pytest.mark.usefixtures("made")
def test_amqplib_publishes_and_what_is_refused_is_shown_with_its_reason(
    stack: Stack, image: str, modules: Path
) -> None:
    options = (f"--volume={modules}:/modules:ro", "--env=NODE_PATH=/modules")
    node = client(stack, image, "node", *options)
    lines = f"{document('node-host')}\n[1]\n"
    run(*node, "node", "/run/shipper/publish.js", stdin=lines)
    shown(stack, "node", "accepted")
    refused = shown(stack, "node", "refused")
    assert (refused["text"], refused["accepted"]) == ("[1]", False)
    assert "it is a number, not an object" in refused["outcome"]
    assert {"node"} == set(stack.data("""
from django.utils import timezone
from soc.events import shippers
answer = [row.shipper.name for row in shippers.read(timezone.now()) if row.refused]
"""))  # fmt: skip


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize("name", KINDS)
def test_the_self_test_of_each_kind_is_read_and_dropped(
    stack: Stack, image: str, name: str
) -> None:
    run(*client(stack, image, name), "sh", "/run/shipper/test.sh")
    message = shown(stack, name, "read, but dropped")
    assert json.loads(message["text"])["message"] == f"Self-test of {name}"


@pytest.mark.usefixtures("made")
def test_a_shipper_may_publish_to_its_own_exchange_only(stack: Stack, image: str) -> None:
    """Who could publish through another's would speak for it."""
    swap = 'sed \'s/shipper[.]tools/shipper.java/; s|cd "$(dirname "$0")"|cd /run/shipper|\''
    script = f"{swap} /run/shipper/test.sh >/tmp/test.sh && sh /tmp/test.sh"
    before = len(messages(stack, "java"))
    run(*client(stack, image, "tools"), "sh", "-c", script, check=False)
    run(*client(stack, image, "tools"), "sh", "/run/shipper/test.sh")
    shown(stack, "tools", "read, but dropped")
    assert len(messages(stack, "java")) == before


@pytest.mark.usefixtures("made")
def test_a_revoked_shipper_is_cut_off_and_its_certificate_is_worth_nothing(
    stack: Stack, image: str, modules: Path, tmp_path: Path
) -> None:
    stack.make("shipper", "NAME=gone", "KIND=amqplib")
    options = (f"--volume={modules}:/modules:ro", "--env=NODE_PATH=/modules")
    node = (*client(stack, image, "gone", *options), "node", "/run/shipper/publish.js")
    with subprocess.Popen(node, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as open_:
        assert open_.stdin
        open_.stdin.write(f"{document('gone-host')}\n")
        open_.stdin.flush()
        shown(stack, "gone", "accepted")
        run("docker", "run", "--rm", "--user=0:0", "--network=none", f"--volume={tmp_path}:/kept",
            f"--volume={folder(stack, 'gone')}:/run/shipper:ro", image,
            "cp", "-a", "/run/shipper", "/kept/gone")  # fmt: skip
        told = stack.make("shipper", "NAME=gone", "REVOKE=1")
        assert "may no longer publish" in told
        assert open_.wait(timeout=30) != 0
        open_.stdin.close()
    assert not folder(stack, "gone").exists()
    old = [part.replace(str(folder(stack, "gone")), str(tmp_path / "gone")) for part in node]
    # Another of the same name is another user: the old certificate does not log in as it.
    stack.make("shipper", "NAME=gone", "KIND=amqplib")
    try:
        again = subprocess.run(
            old, input=f"{document('gone-host')}\n", capture_output=True, text=True, check=False
        )
        assert again.returncode != 0
        assert "ACCESS_REFUSED" in again.stderr or "403" in again.stderr, again.stderr
        run(*node, stdin=f"{document('gone-again')}\n")
        shown(stack, "gone", "accepted: event")
    finally:
        stack.make("shipper", "NAME=gone", "REVOKE=1")
