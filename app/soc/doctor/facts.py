"""The facts that `docker/containers/doctor.sh` has gathered, one file a source."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from soc.provision.site import Site


@dataclass(frozen=True)
class Container:
    """A container of the site as the engine describes it."""

    service: str
    state: dict[str, Any]
    restarts: int
    image: str

    @property
    def status(self) -> str:
        """The engine's word: running, exited, restarting, created, paused."""
        return str(self.state["Status"])

    @property
    def health(self) -> str:
        """Either healthy, unhealthy, starting, or nothing without a check."""
        return str((self.state.get("Health") or {}).get("Status", ""))

    @property
    def last_check(self) -> str:
        """What the last health check printed, in a line."""
        log = (self.state.get("Health") or {}).get("Log") or [{}]
        return " ".join(str(log[-1].get("Output", "")).split())[:200]


@dataclass(frozen=True)
class Facts:
    """Everything that was gathered about one site; a source that failed is empty."""

    site: Site
    folder: Path
    began: float
    """When the gathering began, in seconds since the epoch."""

    def text(self, source: str) -> str:
        """Return what a source printed."""
        path = self.folder / source
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def error(self, source: str) -> str:
        """Return why a source failed, in a line."""
        return " ".join(self.text(f"{source}.error").split())[:200]

    def words(self, source: str, key: str) -> Iterator[list[str]]:
        """Yield the words after a key in the lines of a source."""
        for first, *others in map(str.split, filter(str.strip, self.text(source).splitlines())):
            if first == key:
                yield others

    @cached_property
    def values(self) -> dict[str, str]:
        """The site's variables, none without its file."""
        return self.site.values() if self.site.env_file.is_file() else {}

    @cached_property
    def containers(self) -> list[Container]:
        """The site's containers, stopped ones too."""
        return [
            Container(
                service=one["Config"]["Labels"]["com.docker.compose.service"],
                state=one["State"],
                restarts=one["RestartCount"],
                image=one["Image"],
            )
            for one in json.loads(self.text("containers") or "[]")
        ]

    def runs(self, service: str) -> bool:
        """Return whether a service has a container that runs."""
        return any(one.service == service and one.status == "running" for one in self.containers)

    @cached_property
    def _database(self) -> list[list[str]]:
        return [line.split("\t") for line in self.text("database").splitlines() if line]

    def rows(self, key: str) -> list[list[str]]:
        """Return what the database answered under a key, without it."""
        return [others for first, *others in self._database if first == key]

    def number(self, key: str) -> float:
        """Return the one number under a key, 0 without an answer."""
        return next((float(row[0]) for row in self.rows(key)), 0.0)

    @cached_property
    def broker(self) -> list[Any]:
        """The broker's status, queues, feature flags and definitions; None without an answer."""
        return [_json(line) for line in (self.text("broker").splitlines() + [""] * 4)[:4]]


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
