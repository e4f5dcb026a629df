"""What rows become: which objects are new, which differ, and what is wrong."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models

from soc.common import plugins
from soc.common.inventory import InventoryTarget
from soc.common.net import host_name
from soc.inventory.models import LONGEST_KEY
from soc.inventory.reading import Row


@dataclass
class InventoryLine:
    """What a row means: ``created``, ``changed``, ``same`` or ``wrong``."""

    key: str
    action: str
    said: str = ""
    made: models.Model | None = None
    needed: list[models.Model] = field(default_factory=list)
    """What must be saved before it."""


def target_of(kind: str) -> InventoryTarget:
    """Return what a list's objects become.

    Raises:
        LookupError: no application has such objects.
    """
    for module in plugins.modules("inventory"):
        for target in module.TARGETS:
            if target.kind == kind:
                made: InventoryTarget = target
                return made
    raise LookupError(f"No application has {kind}.")


def compare(kind: str, rows: Iterable[Row]) -> list[InventoryLine]:
    """Return what rows mean, in a fixed number of queries; nothing is written."""
    return _Comparison(target_of(kind)).lines(rows)


class _Comparison:
    def __init__(self, target: InventoryTarget) -> None:
        self._target = target
        known = target.model._default_manager.all()
        if target.named:
            known = known.select_related(*target.named)
        self._known = {self._key(one): one for one in known}
        self._known |= target.other_names()
        self._named = {
            name: {str(one): one for one in model._default_manager.all()}
            for name, model in target.named.items()
        }

    def lines(self, rows: Iterable[Row]) -> list[InventoryLine]:
        found: dict[str, InventoryLine] = {}
        wrong = []
        for number, row in enumerate(rows, 1):
            line = self._line(number, row)
            if line.action == "wrong":
                wrong.append(line)
            elif line.key in found:
                wrong.append(InventoryLine(line.key, "wrong", "It is in the list twice."))
            else:
                found[line.key] = line
        return [*found.values(), *wrong]

    def _line(self, number: int, row: Row) -> InventoryLine:
        key = f"object {number}"
        try:
            if unknown := sorted(set(row) - set(self._target.columns) if row else ()):
                raise ValueError(
                    f"Unknown fields: {', '.join(unknown)[:100]}. "
                    f"There are {', '.join(self._target.columns)}: set a mapping."
                )
            fresh = self._target.model()
            for name in self._target.identity:
                if name in row:
                    setattr(fresh, name, self._value(name, row[name], fresh))
            key = self._key(fresh)
            if not getattr(fresh, self._target.identity[0]):
                raise ValueError(f"It has no {self._target.identity[0]}.")
            made = self._known.get(key, fresh)
            changed = self._change(made, row)
        except ValidationError as error:
            return InventoryLine(key, "wrong", " ".join(error.messages))
        except ValueError as error:
            return InventoryLine(key, "wrong", str(error))
        key = self._key(made)
        needed = [getattr(made, name) for name in self._target.created if name in row]
        if made.pk is None:
            return InventoryLine(key, "created", "", made, needed)
        if changed:
            return InventoryLine(key, "changed", ", ".join(changed), made, needed)
        return InventoryLine(key, "same")

    def _change(self, made: models.Model, row: Row) -> Sequence[str]:
        values = {
            name: self._value(name, row[name], made) for name in self._target.fields if name in row
        }
        changed = [name for name, value in values.items() if getattr(made, name) != value]
        for name in changed:
            setattr(made, name, values[name])
        return changed

    def _value(self, name: str, given: Any, made: models.Model) -> Any:
        """Return a value as the model has it.

        Raises:
            ValueError, ValidationError: it cannot be that.
        """
        column: Any = self._target.model._meta.get_field(name)
        text = str(given).strip() if given is not None else ""
        if not text:
            return column.get_default() if name not in self._target.named else None
        if name in self._target.named:
            return self._one_named(name, text)
        try:
            return column.clean(host_name(text) if name in self._target.hosts else text, made)
        except ValidationError as error:
            raise ValueError(f"{name}: {' '.join(error.messages)}") from error

    def _one_named(self, name: str, text: str) -> models.Model:
        named = self._named[name]
        if text not in named:
            if name not in self._target.created:
                raise ValueError(
                    f"{name}: there is no {text[:80]!r}; create it in the admin first."
                )
            model = self._target.named[name]
            column: Any = model._meta.get_field("name")
            named[text] = model(name=column.clean(text, None))
        return named[text]

    def _key(self, one: models.Model) -> str:
        values = (getattr(one, name) for name in self._target.identity)
        return ":".join(str(value) for value in values if value not in ("", None))[:LONGEST_KEY]
