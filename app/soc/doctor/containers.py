"""Checks of the containers: there, running, healthy, of the right version and configuration."""

from collections.abc import Iterator
from datetime import datetime

from soc.doctor.facts import Container, Facts
from soc.doctor.findings import Finding, critical, warning
from soc.provision.site import SERVICES

ONE_SHOT = "migrate"
IMAGES = {"mariadb": "MARIADB_IMAGE", "rabbitmq": "RABBITMQ_IMAGE"}
RECENT = 3600
"""Seconds for which it is of interest that a container was started again."""


def check(facts: Facts) -> Iterator[Finding]:
    """Yield what is wrong with the containers."""
    if not facts.containers:
        yield critical("containers", "the site does not run: it has no container", "`make up`")
        return
    catches = "catcher" in facts.values.get("COMPOSE_PROFILES", "")
    for service in SERVICES:
        found = [one for one in facts.containers if one.service == service]
        if not found and service != ONE_SHOT and (service != "catcher" or catches):
            yield critical("containers", f"{service} has no container", "`make up`")
        for container in found:
            if service == ONE_SHOT:
                yield from _one_shot(container)
            else:
                yield from _state(container, facts)
    yield from _versions(facts)
    yield from _drift(facts)


def _one_shot(container: Container) -> Iterator[Finding]:
    code = container.state["ExitCode"]
    if container.status == "exited" and code != 0:
        yield critical(
            "containers",
            f"the last migrate ended with {code}",
            "`make logs S=migrate` says why; `make up` goes on where it stopped",
        )


def _state(container: Container, facts: Facts) -> Iterator[Finding]:
    service, state = container.service, container.state
    logs = f"`make logs S={service}`"
    if state.get("OOMKilled"):
        yield critical(
            "containers",
            f"{service} was killed because it needed more memory than its limit",
            f"raise its SOC_…_MEMORY in env/{facts.site.name}.env, then `make up`",
        )
    if container.status == "restarting":
        yield critical(
            "containers",
            f"{service} ends and is started again and again ({container.restarts} times)",
            f"{logs}: the lines before each end say why",
            follows=True,
        )
    elif container.status != "running":
        code = f" with {state['ExitCode']}" if container.status == "exited" else ""
        yield critical(
            "containers",
            f"{service} is {container.status}{code}",
            f"`docker compose up --detach --no-deps {service}`; {logs} says why it ended",
        )
    elif container.health == "unhealthy":
        yield critical(
            "containers",
            f"{service} is unhealthy: {container.last_check or 'its check says nothing'}",
            f"{logs}, then `docker compose restart {service}`",
            follows=True,
        )
    elif container.restarts and facts.began - _seconds(state["StartedAt"]) < RECENT:
        yield warning(
            "containers",
            f"{service} ended by itself {container.restarts} times, the last time within the hour",
            f"{logs} says why",
            follows=True,
        )


def _seconds(time: str) -> float:
    return datetime.fromisoformat(f"{time[:19]}+00:00").timestamp()


def _versions(facts: Facts) -> Iterator[Finding]:
    for variable, name, *ids in map(str.split, facts.text("images").splitlines()):
        if not ids:
            yield warning("containers", f"{variable}={name} is not here", "`make up` gets it")
            continue
        others = dict.fromkeys(
            one.service
            for one in facts.containers
            if IMAGES.get(one.service, "APP_IMAGE") == variable
            and one.service != ONE_SHOT
            and one.image != ids[0]
        )
        if others:
            yield warning(
                "containers",
                f"{', '.join(others)}: another version runs than {variable}={name} is now",
                "`make up` replaces it; `make rollback` goes back to what ran before",
            )


def _drift(facts: Facts) -> Iterator[Finding]:
    if problem := facts.error("drift"):
        yield critical(
            "containers",
            f"Compose cannot read the site: {problem}",
            f"correct compose.yaml or env/{facts.site.name}.env",
        )
    if drifted := [name for name in facts.text("drift").split() if name != ONE_SHOT]:
        yield warning(
            "containers",
            f"changed since the last `make up`: {', '.join(drifted)}",
            "`make up` puts it into force",
        )
