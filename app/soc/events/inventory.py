"""Locations and robots as lists of an inventory have them."""

from collections.abc import Mapping

from soc.common.inventory import InventoryTarget
from soc.events.models import Bot, BotAlias, Site


def _aliases() -> Mapping[str, Bot]:
    return {alias.name: alias.bot for alias in BotAlias.objects.select_related("bot__site")}


TARGETS = (
    InventoryTarget("locations", Site, ("name",), ("time_zone", "notes")),
    InventoryTarget(
        "robots",
        Bot,
        ("host",),
        ("site", "expected_minutes", "enabled", "notes"),
        named={"site": Site},
        created=frozenset({"site"}),
        hosts=frozenset({"host"}),
        other_names=_aliases,
    ),
)
