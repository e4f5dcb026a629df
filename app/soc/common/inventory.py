"""What applications have of an inventory's objects, in their modules ``inventory``: ``TARGETS``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from django.db import models


def _nothing() -> Mapping[str, models.Model]:
    return {}


@dataclass(frozen=True)
class InventoryTarget:
    """A model that rows of a list become, of the list's ``kind``."""

    kind: str
    model: type[models.Model]
    identity: tuple[str, ...]
    """The fields that an object is known by; the first is needed."""
    fields: tuple[str, ...]
    named: Mapping[str, type[models.Model]] = field(default_factory=dict)
    """Fields that hold the name of something else."""
    created: frozenset[str] = frozenset()
    """Those of them whose unknown names become new objects, by their field ``name``."""
    hosts: frozenset[str] = frozenset()
    """Fields that are names of hosts, or addresses."""
    other_names: Callable[[], Mapping[str, models.Model]] = _nothing
    """Reads by which other names objects are known."""

    @property
    def columns(self) -> tuple[str, ...]:
        """What a row may have."""
        return self.identity + self.fields
