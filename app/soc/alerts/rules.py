"""Rules that applications bring, created by their data migrations."""

from dataclasses import dataclass, field
from typing import Any

from django.apps.registry import Apps


@dataclass(frozen=True)
class Default:
    """A rule as an application would have it; ``values`` are fields of the model."""

    application: str
    name: str
    description: str
    values: dict[str, Any] = field(default_factory=dict)


def create(apps: Apps, *defaults: Default) -> None:
    """Create the rules that do not exist yet; an operator's edits stay.

    ``apps`` is the registry of a migration.
    """
    rule = apps.get_model("alerts", "Rule")
    for default in defaults:
        rule.objects.get_or_create(
            application=default.application,
            name=default.name,
            defaults={"description": default.description, **default.values},
        )
