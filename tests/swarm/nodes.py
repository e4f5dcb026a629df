"""Hosts of a swarm: engines that run in containers of this host's engine."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from harness import Stack, has_image, missing, run, wait_for
from soc.provision import environment

FOLDER = Path(__file__).parent
IMAGE = "soc-test-node:trixie"
BASE = "soc-offline/debian:trixie"
# What an engine needs from the one it runs in. It has no right to raise resource limits.
PRIVILEGES = (
    "--cap-add=ALL", "--cap-drop=SYS_RESOURCE", "--security-opt=seccomp=unconfined",
    "--security-opt=apparmor=unconfined", "--security-opt=systempaths=unconfined",
    "--device-cgroup-rule=a *:* rwm", "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw",
    "--tmpfs=/run", "--tmpfs=/tmp",
)  # fmt: skip


def build() -> None:
    """Build the image of a node: Debian's engine."""
    if not has_image(BASE):
        missing(f"there is no {BASE} to make engines from")
    run("docker", "build", "--quiet", "--network=host", f"--tag={IMAGE}", str(FOLDER))


def images(site: Stack) -> list[str]:
    """Return what every node of a site needs."""
    values, _ = environment.parse(site.env_file.read_text())
    return [values[f"{name}_IMAGE"] for name in ("APP", "MARIADB", "RABBITMQ")]


@dataclass
class Nodes:
    """A swarm of several managers, on a network of its own; the first one is deployed from."""

    name: str
    count: int
    tree: Path
    names: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.names = [f"{self.name}-n{number}" for number in range(1, self.count + 1)]

    def start(self) -> None:
        run("docker", "network", "create", f"{self.name}-hosts")
        for node in self.names:
            run(
                "docker", "run", "--detach", "--name", node, "--hostname", node,
                f"--network={self.name}-hosts", f"--volume={node}:/var/lib/docker",
                f"--volume={self.tree}:{self.tree}", *PRIVILEGES, IMAGE,
            )  # fmt: skip
        for node in self.names:
            wait_for(f"the engine of {node}", lambda n=node: self._answers(n))
        first = self.names[0]
        self.run(first, "docker", "swarm", "init")
        token = self.run(first, "docker", "swarm", "join-token", "--quiet", "manager").strip()
        for node in self.names[1:]:
            self.run(node, "docker", "swarm", "join", "--token", token, f"{first}:2377")

    def load(self, *images: str) -> None:
        """Give images of this host to every node."""
        for node in self.names:
            with subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE) as saved:
                load = ["docker", "exec", "--interactive", node, "docker", "load", "--quiet"]
                subprocess.run(load, stdin=saved.stdout, check=True, stdout=subprocess.DEVNULL)

    def remove(self) -> None:
        run("docker", "rm", "--force", "--volumes", *self.names, check=False)
        run("docker", "volume", "rm", "--force", *self.names, check=False)
        run("docker", "network", "rm", f"{self.name}-hosts", check=False)

    def run(self, node: str, *command: str, stdin: str = "", check: bool = True) -> str:
        """Run a command on a node, in the tree."""
        where = ("docker", "exec", "--interactive", f"--workdir={self.tree}", node)
        return run(*where, *command, stdin=stdin, check=check)

    def make(self, site: str, *arguments: str, check: bool = True) -> str:
        """Run `make` for a site on the first node."""
        return self.run(
            self.names[0], "make", "STACK=swarm", f"SITE={site}", *arguments, check=check
        )

    def tasks(self, service: str, *, besides: str = "") -> list[tuple[str, str]]:
        """Return the node and the container of each running task of a service.

        A node that is down has none; one that is paused or cut off does not answer: leave it out.
        """
        found = []
        for node in self.names:
            if node == besides:
                continue
            filter_ = f"--filter=label=com.docker.swarm.service.name={service}"
            listed = run(
                "docker", "exec", node, "docker", "ps", "--quiet", filter_,
                check=False, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            found += [(node, container) for container in listed.split()]
        return found

    def python(self, service: str, code: str, *, besides: str = "") -> str:
        """Run Python code in one task of a service, with Django ready; return the last line."""
        node, container = self.tasks(service, besides=besides)[0]
        printed = self.run(
            node, "docker", "exec", "--interactive", "--env=DJANGO_SETTINGS_MODULE=soc.settings",
            container, "python3", "-", stdin=f"import django; django.setup()\n{code}",
        )  # fmt: skip
        return printed.strip().splitlines()[-1]

    def address(self, node: str) -> str:
        """Return the address of a node on the network of the nodes."""
        networks = json.loads(run("docker", "inspect", node))[0]["NetworkSettings"]["Networks"]
        return str(networks[f"{self.name}-hosts"]["IPAddress"])

    def replicas(self) -> dict[str, tuple[int, int]]:
        """Return each service's running and wanted tasks."""
        listed = self.run(
            self.names[0], "docker", "service", "ls", "--format={{.Name}}/{{.Replicas}}"
        )
        rows = (re.split("[/ ]", line) for line in listed.splitlines())
        return {name: (int(running), int(wanted)) for name, running, wanted, *_ in rows}

    def _answers(self, node: str) -> bool:
        return "Server Version" in self.run(node, "docker", "info", check=False)
