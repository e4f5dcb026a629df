"""A site on three hosts loses one after the other: what is lost, doubled, and how long it stands.

The hosts that fail have a broker each, the active beat, and workers; the first one has the
database.
"""

from __future__ import annotations

import json
import subprocess
import time

import pytest
from meters import Meters
from nodes import Nodes, images

from harness import Stack, run, wait_for, wait_until_equal
from soc.provision.site import BROKERS
from soc.runtime.queues import QUEUES

pytestmark = pytest.mark.drill

SECONDS = 45
CALM_SECONDS = 10
AWAY_SECONDS = 20
LINK = ("docker", "exec", "NODE", "ip", "link", "set", "eth0")
LIMITS = {"beat": 10.0, "tasks": 30.0}
"""The longest time in seconds without a dispatched run, and without a sent mail."""


@pytest.fixture(scope="module", autouse=True)
def _running(site: Stack, nodes: Nodes) -> None:
    nodes.load(*images(site))
    nodes.make(site.site, "up")
    # One on every host, for the meters to run in.
    nodes.run(nodes.names[0], "docker", "service", "scale", f"{site.project}_worker-shared=3")


@pytest.fixture(autouse=True)
def _whole(site: Stack, nodes: Nodes) -> None:
    """Begin each case with every broker in every queue."""
    wait_until_equal("members", lambda: incomplete(site, nodes), {}, seconds=180)


def incomplete(site: Stack, nodes: Nodes) -> dict[str, str]:
    """Return the queues that lack members which are up."""
    tasks = nodes.tasks(f"{site.project}_rabbitmq-1")
    if not tasks:
        return {"rabbitmq-1": "is not up"}
    ((node, broker),) = tasks
    answer = nodes.run(
        node, "docker", "exec", broker, "rabbitmqctl", "--quiet", "--formatter=json",
        "list_queues", "name", "online", check=False,
    )  # fmt: skip
    if not answer.startswith("["):
        return {"rabbitmq-1": answer}
    online = {queue["name"]: queue["online"] or [] for queue in json.loads(answer)}
    names = [name for queue in QUEUES for name in (queue.name, queue.dead_letter_name)]
    # A queue whose leader has just died is not listed.
    found = {name: online.get(name, []) for name in names}
    return {name: str(members) for name, members in found.items() if len(members) < len(BROKERS)}


def active_beat(site: Stack, nodes: Nodes) -> tuple[str, str]:
    """Return the node and the container of the beat that has the lease."""
    code = """
from django.utils import timezone
from soc.core import beats
found = beats.leader(timezone.now())
print(found.name if found else "")
"""
    name = nodes.python(f"{site.project}_web", code)
    found = nodes.tasks(f"{site.project}_beat")
    return next(((node, beat) for node, beat in found if beat in name), ("", ""))


def measured(site: Stack, nodes: Nodes, case: str, victim: str, *steps: tuple[str, ...]) -> None:
    """Break something by commands of this host; hold what the site did against the limits."""
    meters = Meters(nodes, site.project, case, nodes.names[0], victim, SECONDS)
    time.sleep(CALM_SECONDS)
    for step in steps:
        subprocess.run(step, check=True, stdout=subprocess.DEVNULL, timeout=300)
    found = meters.results()
    row = {name: round(value, 1) for name, value in found.items()}
    print(f"\n{case}: {row}")
    assert found["delivered"] == found["mails"]
    # A worker that dies between the relay's answer and its mark sends that one again.
    assert found["doubled"] <= int(case.startswith("kill"))
    for what, limit in LIMITS.items():
        assert found[what] <= limit, what


def test_a_host_is_killed_that_has_the_active_beat(site: Stack, nodes: Nodes) -> None:
    first = nodes.names[0]
    node, beat = wait_for("an active beat", lambda: active_beat(site, nodes))
    if node == first:
        nodes.run(first, "docker", "kill", beat)
    victim, _ = wait_for(
        "a beat on another host",
        lambda: next(
            (found for found in [active_beat(site, nodes)] if found[0] not in ("", first)), ()
        ),
    )
    measured(site, nodes, "kill -9, active beat", victim, ("docker", "kill", victim))
    run("docker", "start", victim)


@pytest.mark.parametrize(
    ("case", "away", "back"),
    [
        ("pause", ("docker", "pause", "NODE"), ("docker", "unpause", "NODE")),
        ("partition", (*LINK, "down"), (*LINK, "up")),
    ],
)
def test_a_host_is_away_and_comes_back(
    site: Stack, nodes: Nodes, case: str, away: tuple[str, ...], back: tuple[str, ...]
) -> None:
    victim = nodes.names[2]
    steps = (away, ("sleep", str(AWAY_SECONDS)), back)
    commands = [tuple(victim if word == "NODE" else word for word in step) for step in steps]
    measured(site, nodes, f"{case} {AWAY_SECONDS} s", victim, *commands)


def test_a_broker_loses_its_volume(site: Stack, nodes: Nodes) -> None:
    """It leaves the cluster that counts on its messages, joins as a new one, and gets copies."""
    service = f"{site.project}_{BROKERS[1]}"
    ((node, _),) = nodes.tasks(service)
    script = f"""
set -e
docker service scale --detach {service}=0
until [ -z "$(docker ps --quiet --filter name={service})" ]; do sleep 1; done
until docker volume rm {service}; do docker container prune --force; sleep 1; done
docker service scale --detach {service}=1
"""
    measured(
        site, nodes, "broker without its volume", "",
        ("docker", "exec", node, "sh", "-c", script),
    )  # fmt: skip
