"""TLS peers beside the running site, and images of RabbitMQ."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from authorities import Authorities

import pki
from harness import Stack, has_image, missing, run, wait_for
from soc.provision import environment

PUBLIC_RABBITMQ = "rabbitmq:4.0-management"
STAND_IN_RABBITMQ = "soc-offline/rabbitmq:4.0"


@pytest.fixture(scope="session")
def images(tree: Stack) -> dict[str, str]:
    """The base images that `make site` has chosen on this machine."""
    values, _ = environment.parse(tree.env_file.read_text())
    return {name: values[f"{name.upper()}_IMAGE"] for name in ("python", "mariadb", "rabbitmq")}


@pytest.fixture(scope="session")
def other_rabbitmq(tree: Stack, images: dict[str, str]) -> str:
    """An image of another series of RabbitMQ than the configured one."""
    if named := os.environ.get("OTHER_RABBITMQ_IMAGE"):
        return named
    if not images["rabbitmq"].startswith("soc-offline/"):
        if not has_image(PUBLIC_RABBITMQ):
            run("docker", "pull", "--quiet", PUBLIC_RABBITMQ, check=False)
        if has_image(PUBLIC_RABBITMQ):
            return PUBLIC_RABBITMQ
    told = run("docker/offline/build", "rabbitmq-4.0", cwd=tree.folder, check=False)
    if not has_image(STAND_IN_RABBITMQ):
        missing(f"there is no other series of RabbitMQ: {told.strip().splitlines()[-1]}")
    return STAND_IN_RABBITMQ


@pytest.fixture(scope="session")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> Authorities:
    """A root, an intermediate below it, and the folder where peers find their certificates."""
    root = pki.issue("test root", ca=True, organization="Test")
    intermediate = pki.issue("test intermediate", root, ca=True, organization="Test")
    return Authorities(root, intermediate, tmp_path_factory.mktemp("peers"))


@pytest.fixture(scope="session")
def peers(stack: Stack, authorities: Authorities) -> Iterator[str]:
    """A container beside the stack with a TLS peer of every kind; its host name."""
    name = f"{stack.project}-peers"
    run("docker", "rm", "--force", name, check=False)
    authorities.write(name)
    image = stack.inspect("web")["Config"]["Image"]
    run(
        "docker", "run", "--detach", "--name", name, f"--network={stack.project}_egress",
        f"--volume={stack.folder}/tests/stack/peers:/peers:ro",
        f"--volume={authorities.folder}:/certificates:ro",
        image, "python3", "/peers/serve.py", "/certificates",
    )  # fmt: skip
    wait_for("the peers", lambda: "ready" in run("docker", "logs", name))
    yield name
    run("docker", "rm", "--force", name)
