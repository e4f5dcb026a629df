"""TLS peers beside the running site."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import pki
from harness import Stack, run, wait_for

DAY = pki.DAY


@dataclass(frozen=True)
class Authorities:
    """The test's own CA and what the peers present of it, by port."""

    root: pki.Issued
    intermediate: pki.Issued
    folder: Path

    def write(self, host: str) -> None:
        """Write key and chain of every TLS peer to ``<port>.pem``."""
        now, chain = pki.NOW, self.intermediate

        def leaf(name: str = host, **validity: object) -> pki.Issued:
            return pki.issue(name, chain, san=[name], organization="Test", **validity)

        stranger = pki.issue("strange root", ca=True, organization="Elsewhere")
        presented = {
            4443: (leaf(not_after=now - DAY, not_before=now - 9 * DAY), chain),
            4444: (pki.issue(host, san=[host]),),
            4445: (leaf("elsewhere.internal"), chain),
            4446: (leaf(not_before=now + DAY, not_after=now + 9 * DAY), chain),
            4447: (leaf(),),
            4448: (leaf(not_after=now + 300 * DAY), chain),
            4449: (leaf(not_after=now + 3 * DAY), chain),
            4450: (pki.issue(host, stranger, san=[host]), stranger),
        }
        for port, (own, *others) in presented.items():
            certificates = b"".join(issued.cert_pem for issued in (own, *others))
            (self.folder / f"{port}.pem").write_bytes(own.key_pem + certificates)
            (self.folder / f"{port}.pem").chmod(0o644)
        self.folder.chmod(0o755)


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
