"""The stack file of a swarm, from what Compose makes of compose.yaml."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness import REPOSITORY, missing, run
from soc.provision import environment
from soc.provision import site as sites
from soc.provision.site import BROKERS
from soc.provision.swarm import NOT_CARRIED, Converter, Files, NotCarried, main

SERVICE = {
    "image": "app:1",
    "cpus": 0.5,
    "mem_limit": "201326592",
    "pids_limit": 200,
    "restart": "unless-stopped",
    "networks": {"data": None},
}


def converter(tmp_path: Path, **services: dict[str, Any]) -> Converter:
    networks = {"data": {"internal": True}}
    config = {"name": "soc-x", "services": services, "networks": networks, "volumes": {}}
    folder = tmp_path / "env" / "x"
    folder.mkdir(parents=True, exist_ok=True)
    images = {"app:1": "sha256:1"}
    return Converter(
        config,
        folder,
        tmp_path / "configs",
        images,
        {"worker-a": 3},
        3,
        1,
        Files("soc-x"),
        Files("soc-x"),
    )


def test_an_option_that_nobody_thought_of_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotCarried, match=r"worker-a uses sysctls in compose\.yaml"):
        converter(tmp_path, **{"worker-a": {**SERVICE, "sysctls": {}}}).stack()


def test_limits_placement_and_order_of_a_worker(tmp_path: Path) -> None:
    deploy = converter(tmp_path).service("worker-a", SERVICE)["deploy"]
    assert deploy["resources"]["limits"] == {"cpus": "0.5", "memory": "201326592", "pids": 200}
    assert deploy["replicas"] == 3
    assert deploy["update_config"]["order"] == "start-first"
    assert "placement" not in deploy


def broker() -> dict[str, Any]:
    return {
        **SERVICE,
        "environment": {
            "RABBITMQ_NODENAME": "rabbit@localhost",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+P 9 -kernel inet_dist_use_interface {127}",
        },
        "healthcheck": {"test": ["CMD", "true"], "interval": "1s"},
        "volumes": [{"type": "volume", "source": "rabbitmq", "target": "/var/lib/rabbitmq"}],
    }


def test_three_brokers_have_own_names_and_volumes_and_one_name_for_clients(tmp_path: Path) -> None:
    made = converter(tmp_path, rabbitmq=broker())
    made = dataclasses.replace(made, brokers=3, configs=REPOSITORY / "configs")
    stack = made.stack()
    assert list(stack["services"]) == ["rabbitmq-1", "rabbitmq-2", "rabbitmq-3"]
    assert list(stack["volumes"]) == ["rabbitmq-1", "rabbitmq-2", "rabbitmq-3"]
    second = stack["services"]["rabbitmq-2"]
    assert second["networks"] == {"data": {"aliases": ["rabbitmq"]}}
    assert second["environment"]["RABBITMQ_NODENAME"] == "rabbit@rabbitmq-2"
    assert "ERL_EPMD_ADDRESS" not in second["environment"]
    arguments = second["environment"]["RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS"]
    assert arguments.startswith("+P 9 -proto_dist inet_tls")
    assert "127" not in arguments
    assert second["deploy"]["placement"] == {"constraints": ["node.labels.soc-x.broker == 2"]}
    assert second["deploy"]["update_config"]["order"] == "stop-first"


def test_every_queue_and_beat_have_a_second_task_where_there_are_two_nodes(tmp_path: Path) -> None:
    made = converter(tmp_path)
    for service in ("beat", "worker-email", "worker-events"):
        assert made.service(service, SERVICE)["deploy"]["replicas"] == 2
    alone = dataclasses.replace(made, nodes=1)
    assert alone.service("beat", SERVICE)["deploy"]["replicas"] == 1
    assert "replicas" not in made.service("flower", SERVICE)["deploy"]


def test_what_has_a_volume_stays_on_the_data_node(tmp_path: Path) -> None:
    deploy = converter(tmp_path).service("mariadb", SERVICE)["deploy"]
    assert deploy["placement"] == {"constraints": ["node.labels.soc-x.data == true"]}
    assert deploy["update_config"]["order"] == "stop-first"


def test_a_changed_secret_has_another_name_and_the_same_one_keeps_it(tmp_path: Path) -> None:
    volume = {"type": "bind", "source": str(tmp_path / "env/x/worker-a"), "target": "/run/site"}
    worker = {**SERVICE, "volumes": [volume]}
    made = converter(tmp_path)
    key = made.identities / "worker-a" / "key.pem"
    key.parent.mkdir()
    names = []
    for content in ("one", "one", "two"):
        key.write_text(content)
        (secret,) = made.service("worker-a", worker)["secrets"]
        assert (secret["target"], secret["mode"]) == ("/run/site/key.pem", 0o400)
        names.append(secret["source"])
    assert names[0] == names[1] != names[2]
    assert all(len(name) <= 64 for name in names)


def test_an_image_built_again_under_its_name_replaces_the_tasks(tmp_path: Path) -> None:
    assert converter(tmp_path).service("web", SERVICE)["labels"] == {"soc.image": "sha256:1"}


def test_the_stack_of_this_tree_is_carried_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every service, limit and file of compose.yaml, and nothing that a swarm refuses."""
    root = tmp_path / "env"
    root.mkdir()
    (root / "example.env").write_text((REPOSITORY / "env" / "example.env").read_text())
    site = sites.Site("x", root)
    sites.create(site, "containers", {"COMPOSE_PROFILES": "catcher"})
    sites.render(site)
    (tmp_path / "compose.yaml").write_text((REPOSITORY / "compose.yaml").read_text())
    if shutil.which("docker") is None:
        missing("there is no Compose to read compose.yaml")
    compose = ("docker", "compose", f"--env-file={site.env_file}", "config", "--format=json")
    config = run(*compose, cwd=tmp_path, stderr=subprocess.PIPE)
    draft = tmp_path / "config.json"
    draft.write_text(config)
    values, _ = environment.parse(site.env_file.read_text())
    images = [f"--image={values[f'{name}_IMAGE']}=id" for name in ("APP", "MARIADB", "RABBITMQ")]
    images += ["--nodes=3", "--brokers=3"]
    with draft.open() as given:
        monkeypatch.setattr("sys.stdin", given)
        assert main(["x", f"--root={root}", f"--configs={REPOSITORY / 'configs'}", *images]) == 0
    lines = [line.split(" ", 1) for line in capsys.readouterr().out.splitlines()]
    (whole,) = (json.loads(text) for kind, text in lines if kind == "whole")
    stages = [text.split(" ", 1)[0] for kind, text in lines if kind == "stage"]
    assert stages == ["mariadb", "rabbitmq-1", "migrate"]
    services = json.loads(config)["services"]
    brokers = {f"rabbitmq-{number}": services["rabbitmq"] for number in (1, 2, 3)}
    services = {**services, **brokers}
    assert set(whole["services"]) == set(services) - {"migrate", "rabbitmq"}
    for name, service in whole["services"].items():
        assert not set(service) & {*NOT_CARRIED, "cpus", "mem_limit", "pids_limit", "restart"}
        assert service["deploy"]["resources"]["limits"]["pids"] == services[name]["pids_limit"]
        assert service["read_only"]
        identity = "rabbitmq" if name in brokers else name
        files = {secret["target"] for secret in service["secrets"]}
        assert files == {f"/run/site/{path.name}" for path in (root / "x" / identity).iterdir()}
        assert {secret["source"] for secret in service["secrets"]} <= set(whole["secrets"])


def test_brokers_look_for_each_other_by_the_names_of_their_certificate() -> None:
    folder = REPOSITORY / "configs" / "rabbitmq"
    found = re.findall(r"nodes\.\d = rabbit@(\S+)", (folder / "cluster.conf").read_text())
    assert tuple(found) == BROKERS
    assert f"for name in {' '.join(BROKERS)};" in (folder / "clustered").read_text()
