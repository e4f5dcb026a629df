"""What a container may do, asked from inside it and of the engine."""

from __future__ import annotations

import json
import re
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import Stack, run
from soc.provision import site

SERVICES = tuple(name for name in site.SERVICES if name != "migrate")
OUTWARD = {name for name in SERVICES if name.startswith("worker-")} | {"web", "flower"}
INSIDE = r"""
for status in /proc/[0-9]*/status; do
    fields='Uid|CapEff|CapBnd|NoNewPrivs|Seccomp'
    sed -n -E "s/^($fields):\t*/\1 /p" "$status" | tr '\n\t' ';,'
    echo
done
touch /probe 2>/dev/null && echo "writable /"
touch /usr/bin/probe 2>/dev/null && echo "writable /usr/bin"
touch /run/site/probe 2>/dev/null && echo "writable /run/site"
touch /tmp/probe && rm /tmp/probe && echo "tmp works"
[ ! -e /var/run/docker.sock ] || echo "the engine's socket"
echo "pids $(cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null)"
"""


@pytest.fixture(scope="module", params=SERVICES)
def service(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def inside(stack: Stack, service: str) -> list[str]:
    """What a shell in the container finds."""
    return stack.exec(service, "sh", "-c", INSIDE).strip().splitlines()


def test_every_process_is_without_rights(inside: list[str]) -> None:
    processes = [line for line in inside if line.startswith("Uid")]
    assert processes
    for process in processes:
        fields = dict(part.split(" ", 1) for part in process.strip(";").split(";"))
        assert set(fields["Uid"].split(",")) == {"999"}
        assert int(fields["CapEff"], 16) == 0
        assert int(fields["CapBnd"], 16) == 0
        assert fields["NoNewPrivs"] == "1"
        assert fields["Seccomp"] == "2"


def test_nothing_but_its_scratch_space_can_be_written(inside: list[str]) -> None:
    assert [line for line in inside if line.startswith(("writable", "the engine's"))] == []
    assert "tmp works" in inside


def test_the_number_of_processes_is_limited(stack: Stack, service: str, inside: list[str]) -> None:
    (limit,) = [line.split()[1] for line in inside if line.startswith("pids")]
    assert int(limit) == stack.inspect(service)["HostConfig"]["PidsLimit"] == 200


@pytest.fixture(scope="module")
def world(stack: Stack) -> Iterator[tuple[str, int]]:
    """A listener outside of the stack, on the host, by the address that containers know it by."""
    (network,) = json.loads(run("docker", "network", "inspect", f"{stack.project}_egress"))
    with socketserver.ThreadingTCPServer(("", 0), socketserver.BaseRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield network["IPAM"]["Config"][0]["Gateway"], server.server_address[1]
        server.shutdown()


def test_only_who_must_reach_the_world_has_a_way_out(
    stack: Stack, service: str, world: tuple[str, int]
) -> None:
    host, port = world
    answer = stack.exec(
        service, "timeout", "3", "bash", "-c",
        f"</dev/tcp/{host}/{port} && echo REACHED", check=False,
    )  # fmt: skip
    assert ("REACHED" in answer) is (service in OUTWARD), answer


def test_the_engine_says_the_same(stack: Stack, service: str) -> None:
    container = stack.inspect(service)
    host, config = container["HostConfig"], container["Config"]
    assert config["User"] not in ("", "root", "0")
    assert host["ReadonlyRootfs"] is True
    assert host["Privileged"] is False
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    # No profile is named, and so the engine's default one filters system calls.
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["NanoCpus"] > 0
    assert host["Memory"] > 0
    assert not host["PidMode"]
    assert host["IpcMode"] in ("private", "none")
    assert host["NetworkMode"] != "host"
    assert not host["Devices"]
    assert "/tmp" in host["Tmpfs"]
    assert set(container["NetworkSettings"]["Networks"]) == {
        f"{stack.project}_{name}"
        for name in (("data", "egress") if service in OUTWARD else ("data",))
    }


def test_a_service_sees_no_folder_of_the_host_but_its_own(stack: Stack, service: str) -> None:
    mounts = [m for m in stack.inspect(service)["Mounts"] if m["Type"] == "bind"]
    sources = {str(Path(m["Source"]).relative_to(stack.folder)) for m in mounts}
    own = f"env/{stack.site}/{service}"
    assert own in sources
    assert all(source == own or source.startswith("configs/") for source in sources)
    assert not any(mount["RW"] for mount in mounts)


def test_nothing_is_published_but_web_and_flower(stack: Stack) -> None:
    published = {}
    for name in SERVICES:
        ports = stack.inspect(name)["NetworkSettings"]["Ports"]
        for port, hosts in ports.items():
            for host in hosts or ():
                published[name, port] = (host["HostIp"], int(host["HostPort"]))
    assert published == {
        ("web", "8443/tcp"): ("127.0.0.1", stack.web_port),
        ("flower", "5555/tcp"): ("127.0.0.1", stack.flower_port),
    }


def test_the_network_of_the_data_is_internal(stack: Stack) -> None:
    (network,) = json.loads(run("docker", "network", "inspect", f"{stack.project}_data"))
    assert network["Internal"] is True


def secret_values(folder: Path) -> Iterator[str]:
    """Yield every secret of a site: passwords, and a line from the middle of each private key."""
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix in ("", ".key"):
            yield from path.read_text().split()
        elif path.name.endswith("key.pem"):
            yield path.read_text().splitlines()[2]


@pytest.fixture(scope="module")
def secrets(stack: Stack) -> set[str]:
    values = {
        value for value in secret_values(stack.folder / "env" / stack.site) if len(value) > 20
    }
    assert len(values) >= len(site.SERVICES)
    assert stack.secret("flower", "password") in values
    return values


def found_in(text: str, secrets: set[str]) -> set[str]:
    return {secret[:4] + "…" for secret in secrets if secret in text}


def test_no_secret_is_known_to_the_engine(stack: Stack, secrets: set[str]) -> None:
    for name in SERVICES:
        assert not found_in(run("docker", "inspect", stack.container(name)), secrets), name
        assert not found_in(run("docker", "top", stack.container(name)), secrets), name
    for name in ("web", "mariadb", "rabbitmq"):
        image = stack.inspect(name)["Image"]
        assert not found_in(run("docker", "image", "inspect", image), secrets), name
        assert not found_in(run("docker", "history", "--no-trunc", image), secrets), name


def test_no_secret_is_in_the_image(stack: Stack, secrets: set[str], tmp_path: Path) -> None:
    """Neither this site's, nor any file where a site's would stand."""
    patterns = tmp_path / "patterns"
    patterns.write_text("\n".join(secrets))
    image = stack.inspect("web")["Image"]
    search = f"docker save {image} | LC_ALL=C grep -c -a -F -f {patterns}"
    found = subprocess.run(["sh", "-c", search], capture_output=True, text=True, check=False)
    assert found.stdout.strip() == "0", found
    listed = run(
        "docker", "run", "--rm", "--network=none", "--user=0:0", "--cap-drop=ALL",
        "--cap-add=DAC_OVERRIDE", image, "find", "/", "-xdev",
        "(", "-name", "*.env", "-o", "-name", "secret_key*", "-o", "-name", "sealing_keys", ")",
    )  # fmt: skip
    assert listed == ""


def test_no_secret_is_in_a_log(stack: Stack, secrets: set[str]) -> None:
    for name in SERVICES:
        assert not found_in(run("docker", "logs", stack.container(name)), secrets), name


def test_no_secret_is_on_a_page(stack: Stack, secrets: set[str]) -> None:
    browser = stack.browser()
    assert browser.sign_in(stack.secret("migrate", "admin_password"))[0] == 200
    pages = [
        browser.open(path)[2] for path in ("/", "/nowhere/", "/admin/", "/admin/core/nowhere/1/")
    ]
    pages += [
        stack.flower(path)[1] for path in ("/", "/tasks", "/broker", "/api/tasks", "/nowhere")
    ]
    assert all(pages)
    assert [found_in(page, secrets) for page in pages] == [set()] * len(pages)


@pytest.mark.parametrize("service", ["web", "worker-email", "beat"])
def test_a_service_finds_no_secret_of_another(stack: Stack, service: str) -> None:
    """Its folder holds its own, and nothing else of the host is mounted."""
    here = set(
        stack.exec(service, "sh", "-c", "cat /run/site/* /proc/1/environ | tr '\\0' '\\n'").split()
    )
    for other in SERVICES:
        for name in site._SECRETS.get(other, ()):
            shared = {(site.SAMPLER, "monitor_password")}
            if other != service and (service, name) not in shared:
                assert stack.secret(other, name) not in here, (other, name)


def test_scratch_space_is_small(stack: Stack) -> None:
    size = stack.exec("beat", "df", "-m", "--output=size", "/tmp").split()[-1]
    assert int(size) <= 64
    assert re.search(r"\bnosuid\b.*\bnodev\b", stack.exec("beat", "grep", " /tmp ", "/proc/mounts"))
