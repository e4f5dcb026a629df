"""Turns what Compose makes of compose.yaml into a stack file for Docker Swarm.

compose.yaml stays the one source: ``docker compose config --format json`` goes in, and a stack
file for ``docker stack deploy`` comes out. Swarm ignores or drops without a word much of what
Compose honours, so an option that is not in the tables below is refused, and each that Swarm
cannot carry is named with what takes its place.

It needs no Django and runs in the app image, as root, because the files belong to the containers.
The stack file format: Compose file version 3 and docker/cli's loader for ``docker stack deploy``.
"""

import argparse
import base64
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from soc.provision.site import BROKERS
from soc.runtime.queues import QUEUES

Options = dict[str, Any]

STACK_FILE_VERSION = "3.9"

CARRIED = (
    "cap_drop", "command", "entrypoint", "environment", "healthcheck", "image", "init", "logging",
    "read_only", "stop_grace_period", "user",
)  # fmt: skip
"""Options that mean the same in both."""

CONVERTED = ("cpus", "mem_limit", "networks", "pids_limit", "ports", "restart", "tmpfs", "volumes")
"""Options that Swarm writes in another way."""

NOT_CARRIED = {
    "cpu_shares": "a swarm has limits of CPU and no shares",
    "depends_on": "migrate runs first; a task is restarted until its servers answer",
    "dns_opt": "a swarm's tasks use the engine's own resolver options",
    "profiles": "the site's COMPOSE_PROFILES has chosen already",
    "pull_policy": "the deploy resolves no image at a registry",
    "security_opt": "no-new-privileges is the engines' own setting; a job checks it on every node",
}

IMAGE_LABEL = "soc.image"
"""The label of a task with the id of its image."""

DATA_LABEL = "data"
"""The label of the node that holds a site's volumes: ``<project>.data=true``."""

BROKER_LABEL = "broker"
"""The label of the node that holds a broker's volume: ``<project>.broker=1``."""

SERVED_BY_EVERY_NODE = ("web",)
TASKS_OF_THE_DATA_NODE = ("catcher", "flower", "mariadb")
"""What has a local volume, or an address that people know."""

TWICE = ("beat", *(queue.service for queue in QUEUES))
"""What has a second task on another node, so that a lost node leaves one."""

JOB = "migrate"
BROKER = "rabbitmq"
_CLUSTERED = "/etc/rabbitmq/clustered"
_INTER_NODE_TLS = "/etc/rabbitmq/inter_node_tls.config"
_BROKER_FILES = {
    "cluster.conf": "/etc/rabbitmq/conf.d/cluster.conf",
    "clustered": _CLUSTERED,
    "inter_node_tls.config": _INTER_NODE_TLS,
}
"""What a broker of several reads besides what the one of a single host does."""

_ERLANG_TLS = f"-proto_dist inet_tls -ssl_dist_optfile {_INTER_NODE_TLS}"
_ERLANG_ARGUMENTS = "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS"
SECRET_NAME_LENGTH = 64
OWNER = "999"
"""The id of every container's user, as Swarm writes it."""


class NotCarried(ValueError):
    """compose.yaml uses something that this converter does not know."""


@dataclass
class Files:
    """The files that tasks read, under names that change with their content.

    Swarm refuses a changed secret under the same name, and a new name is what makes it replace
    the tasks that read the old one.
    """

    project: str
    content: dict[str, bytes] = field(default_factory=dict)

    def add(self, label: str, content: bytes) -> str:
        """Keep a file; return its name on the swarm: project, label and a digest."""
        end = f"-{hashlib.sha256(content).hexdigest()[:12]}"
        name = f"{self.project}-{label}"[: SECRET_NAME_LENGTH - len(end)] + end
        self.content[name] = content
        return name


@dataclass(frozen=True)
class Converter:
    """Converts the services of one site.

    ``config`` is the parsed output of ``docker compose config``; the sources of its bind mounts
    are looked up below ``identities`` (``env/<site>/``) and ``configs``, because the host's own
    paths are not those of the container that this runs in.
    """

    config: Mapping[str, Any]
    identities: Path
    configs: Path
    images: Mapping[str, str]
    """The id of each image's content by its name."""
    replicas: Mapping[str, int]
    """How many tasks a service has at present: a deploy that does not say it makes it one again."""
    nodes: int
    """How many nodes the swarm has."""
    brokers: int
    """How many nodes have a broker: one or three."""
    secrets: Files
    settings: Files

    def stack(self) -> Options:
        """Return the stack file.

        Raises:
            NotCarried: a service uses an option that is in none of the tables above.
        """
        services = {
            name: self.service(name, s)
            for name, s in self.config["services"].items()
            if name != BROKER
        }
        services |= self._brokers(self.config["services"][BROKER])
        volumes = {v["source"] for s in services.values() for v in s["volumes"] if "source" in v}
        return {
            "version": STACK_FILE_VERSION,
            "services": services,
            "networks": {
                name: {"driver": "overlay", "internal": bool(network.get("internal"))}
                for name, network in self.config["networks"].items()
            },
            "volumes": {name: {} for name in sorted(volumes)},
            "secrets": {name: {"external": True} for name in self.secrets.content},
            "configs": {name: {"external": True} for name in self.settings.content},
        }

    def service(self, name: str, options: Options) -> Options:
        """Return one service as Swarm writes it."""
        options = {key: value for key, value in options.items() if value is not None}
        if unknown := set(options) - {*CARRIED, *CONVERTED, *NOT_CARRIED}:
            raise NotCarried(
                f"{name} uses {', '.join(sorted(unknown))} in compose.yaml: add it to a table of "
                "soc.provision.swarm, with how a swarm has it or why it has it not"
            )
        converted = {key: options[key] for key in CARRIED if key in options}
        # A swarm looks at the name alone, and would keep the old tasks of an image built again.
        converted["labels"] = {IMAGE_LABEL: self.images[options["image"]]}
        converted["networks"] = sorted(options["networks"])
        mounts = [self._tmpfs(text) for text in options.get("tmpfs", ())]
        for volume in options.get("volumes", ()):
            if volume["type"] == "bind":
                self._read_files(converted, volume)
            else:
                mounts.append({key: volume[key] for key in ("type", "source", "target")})
        converted["volumes"] = mounts
        if ports := options.get("ports"):
            converted["ports"] = [_port(port) for port in ports]
        converted["deploy"] = self._deploy(name, options)
        return converted

    def _brokers(self, options: Options) -> Iterator[tuple[str, Options]]:
        """Yield the brokers: each on a node of its own, all of them behind one name.

        A broker has a name of its own and a volume by that name even when it is alone, so that
        others can join it later.
        """
        for number, name in enumerate(BROKERS[: self.brokers], start=1):
            one = self.service(BROKER, options)
            for file, target in _BROKER_FILES.items():
                self._read_setting(one, self.configs / BROKER / file, target)
            environment = {k: v for k, v in one["environment"].items() if k != "ERL_EPMD_ADDRESS"}
            words = environment[_ERLANG_ARGUMENTS].split(" -kernel inet_dist_use_interface")[0]
            one["environment"] = environment | {
                "RABBITMQ_NODENAME": f"rabbit@{name}",
                _ERLANG_ARGUMENTS: f"{words} {_ERLANG_TLS}",
                "RABBITMQ_CTL_ERL_ARGS": _ERLANG_TLS,
            }
            one["hostname"] = name
            one["command"] = [_CLUSTERED, "start"]
            one["healthcheck"] = options["healthcheck"] | {
                "test": ["CMD", "steady", _CLUSTERED, "check"]
            }
            one["stop_grace_period"] = "120s"
            one["networks"] = {network: {"aliases": [BROKER]} for network in options["networks"]}
            for mount in one["volumes"]:
                if mount.get("source") == BROKER:
                    mount["source"] = name
            label = f"node.labels.{self.config['name']}.{BROKER_LABEL} == {number}"
            one["deploy"]["placement"] = {"constraints": [label]}
            yield name, one

    @staticmethod
    def _tmpfs(text: str) -> Options:
        target, _, listed = text.partition(":")
        given = dict(pair.split("=") for pair in listed.split(",") if "=" in pair)
        if "uid" in given:
            # A tmpfs of a task is root's: a volume takes the image's folder with its owner.
            return {"type": "volume", "source": Path(target).name, "target": target}
        size = {"tmpfs": {"size": _bytes(given["size"])}} if "size" in given else {}
        return {"type": "tmpfs", "target": target, **size}

    def _read_files(self, converted: Options, volume: Options) -> None:
        source, target = Path(volume["source"]), volume["target"]
        if source.parent.name == self.identities.name:
            folder = self.identities / source.name
            for path in sorted(folder.iterdir()):
                secret = self.secrets.add(f"{source.name}-{path.name}", path.read_bytes())
                converted.setdefault("secrets", []).append(
                    {"source": secret, "target": f"{target}/{path.name}",
                     "uid": OWNER, "gid": OWNER, "mode": 0o400}
                )  # fmt: skip
            return
        below = source.parts[source.parts.index("configs") + 1 :]
        for path, at in _files(self.configs.joinpath(*below), target):
            self._read_setting(converted, path, at)

    def _read_setting(self, converted: Options, path: Path, target: str) -> None:
        setting = self.settings.add(path.name, path.read_bytes())
        runs = path.stat().st_mode & 0o111
        converted.setdefault("configs", []).append(
            {"source": setting, "target": target, "mode": 0o555 if runs else 0o444}
        )

    def _deploy(self, name: str, options: Options) -> Options:
        limits = {
            "cpus": str(options["cpus"]),
            "memory": str(options["mem_limit"]),
            "pids": int(options["pids_limit"]),
        }
        deploy: Options = {"endpoint_mode": "dnsrr", "resources": {"limits": limits}}
        if name == JOB:
            again = {"condition": "on-failure", "delay": "5s", "max_attempts": 24}
            return deploy | {"mode": "replicated-job", "restart_policy": again}
        if name in SERVED_BY_EVERY_NODE:
            deploy["mode"] = "global"
        elif name in self.replicas:
            deploy["replicas"] = self.replicas[name]
        elif name in TWICE:
            deploy["replicas"] = min(2, self.nodes)
        if name in TASKS_OF_THE_DATA_NODE:
            label = f"node.labels.{self.config['name']}.{DATA_LABEL} == true"
            deploy["placement"] = {"constraints": [label]}
        # What listens on a port of its node, or holds a volume, can't run next to its successor.
        alone = name in (*SERVED_BY_EVERY_NODE, *TASKS_OF_THE_DATA_NODE, BROKER)
        change = {"order": "stop-first" if alone else "start-first", "parallelism": 1}
        return deploy | {
            "restart_policy": {"condition": "any", "delay": "5s"},
            "update_config": change | {"failure_action": "rollback", "monitor": "30s"},
            "rollback_config": change,
        }


def _port(port: Options) -> Options:
    # The ingress mesh needs IPVS in the kernel, and where that is missing it swallows connections.
    return {
        "target": port["target"],
        "published": int(port["published"]),
        "protocol": "tcp",
        "mode": "host",
    }


def _files(path: Path, target: str) -> Iterator[tuple[Path, str]]:
    if path.is_file():
        yield path, target
        return
    yield from ((child, f"{target}/{child.name}") for child in sorted(path.iterdir()))


def _bytes(size: str) -> int:
    return int(size.removesuffix("m")) * 2**20


def main(arguments: list[str] | None = None) -> int:
    """Print the stack file and what it names, one a line, for ``docker/swarm/stack``.

    ``stage`` is a stack file of what has to work before the next is deployed, under the name of
    the service that it waits for; ``whole`` is all of it, as JSON. ``secret`` and ``config`` are
    a name and its content in Base64.
    """
    parser = argparse.ArgumentParser(prog="soc.provision.swarm", description=__doc__.split("\n")[0])
    parser.add_argument("site")
    parser.add_argument("--root", type=Path, default=Path("env"))
    parser.add_argument("--configs", type=Path, default=Path("configs"))
    parser.add_argument("--image", action="append", default=[], metavar="NAME=ID")
    parser.add_argument("--replicas", action="append", default=[], metavar="SERVICE=COUNT")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--brokers", type=int, default=1, choices=(1, 3))
    options = parser.parse_args(arguments)
    config = json.load(sys.stdin)
    converter = Converter(
        config,
        options.root / options.site,
        options.configs,
        dict(pair.split("=") for pair in options.image),
        {name: int(count) for name, count in (pair.split("=") for pair in options.replicas)},
        options.nodes,
        options.brokers,
        Files(config["name"]),
        Files(config["name"]),
    )
    try:
        stack = converter.stack()
    except NotCarried as problem:
        print(problem, file=sys.stderr)
        return 1
    services = stack["services"]
    # Together if they are new, else one after the other: two of three have to go on serving.
    brokers = {name: services[name] for name in BROKERS if name in services}
    parts = [{"mariadb": services["mariadb"]}, *({n: s} for n, s in brokers.items())]
    if not set(brokers) <= set(converter.replicas):
        parts = [parts[0], brokers]
    # A deploy runs every job of its file again, changed or not.
    rest = {name: service for name, service in services.items() if name != JOB}
    for part in (*parts, {JOB: services[JOB]}):
        print("stage", next(iter(part)), json.dumps(stack | {"services": part}))
    print("whole", json.dumps(stack | {"services": rest}))
    for kind, files in (("secret", converter.secrets), ("config", converter.settings)):
        for name, content in files.content.items():
            print(kind, name, base64.b64encode(content).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
