"""Which robot a host's name is of, and making one robot of two.

A robot goes by its host's name and by its aliases. A name that is neither is matched by its first
label, because Winlogbeat changes between short and full names at an upgrade, and forwarded events
carry full ones.
"""

from collections.abc import Iterator
from typing import Any

from django.db import models, transaction
from django.db.models import Max, Min, Q, UniqueConstraint

from soc.common.deadlocks import again_after_deadlock
from soc.events import hosts
from soc.events.models import Bot, BotAlias, Event

RANGE = 10_000
"""Keys of raw events that one statement looks at."""


def by_name() -> dict[str, Bot]:
    """Return all robots by their names and aliases."""
    bots = {bot.pk: bot for bot in Bot.objects.only("host", "addresses")}
    aliases = BotAlias.objects.values_list("name", "bot_id")
    named = {name: bots[key] for name, key in aliases if key in bots}
    return named | {bot.host: bot for bot in bots.values()}


def find(name: str) -> Bot | None:
    """Return the robot of a host's name, which becomes its alias if the first label found it."""
    bot = _named(Q(name=name), Q(host=name)).first() or _by_first_label(name)
    if bot and bot.host != name:
        BotAlias.objects.bulk_create([BotAlias(name=name, bot=bot)], ignore_conflicts=True)
    return bot


def _named(alias: Q, host: Q) -> models.QuerySet[Bot]:
    return Bot.objects.filter(host | Q(pk__in=BotAlias.objects.filter(alias).values("bot")))


def _by_first_label(name: str) -> Bot | None:
    """Return the only robot that may be meant; none if a person must say which."""
    if hosts.is_full(name):
        label = hosts.short(name)
        bot = _named(Q(name=label), Q(host=label)).first()
        # With another full name it is a host of another domain.
        return None if bot is None or any(map(hosts.is_full, _names(bot))) else bot
    start = f"{name}."
    found = _named(Q(name__startswith=start), Q(host__startswith=start))[:2]
    return found[0] if len(found) == 1 else None


def _names(bot: Bot) -> list[str]:
    return [bot.host, *bot.aliases.values_list("name", flat=True)]


def keep_name(bot: Bot, former: str) -> None:
    """Let a robot that was renamed still go by its former name."""
    BotAlias.objects.filter(name=bot.host).delete()
    BotAlias.objects.update_or_create(name=former, defaults={"bot": bot})


# --- Making one of two --------------------------------------------------------------------------


def merge(source: Bot, target: Bot) -> None:
    """Give everything that is known of one robot to another, which takes over its names as well.

    Where both have a row that there may be only one of, the target's is kept.
    """
    gone = source.pk
    _merge(source, target)
    # No event of the source can come any more: a worker that still remembers it is refused.
    _move_events(gone, target.pk)


@again_after_deadlock
def _merge(source: Bot, target: Bot) -> None:
    with transaction.atomic():
        # Events of either wait until the end.
        locked = Bot.objects.select_for_update().order_by("pk").in_bulk([source.pk, target.pk])
        source, target = locked[source.pk], locked[target.pk]
        for field in _references():
            _move(field, source, target)
        if target.site_id is None and source.site_id is not None:
            target.site_id = source.site_id
            target.save(update_fields=["site"])
        source.delete()
        BotAlias.objects.create(name=source.host, bot=target)


def _references() -> Iterator["models.ForeignKey[Any, Any]"]:
    """Yield the fields of all models but raw events that name a robot.

    ``related_objects`` lacks those without a reverse name.
    """
    for relation in Bot._meta.get_fields(include_hidden=True):
        field = relation.field if isinstance(relation, models.ForeignObjectRel) else None
        if isinstance(field, models.ForeignKey) and field.model is not Event:
            yield field


def _move(field: "models.ForeignKey[Any, Any]", source: Bot, target: Bot) -> None:
    manager = field.model._default_manager
    rows = manager.filter(**{field.name: source})
    for others in _unique_with(field):
        kept = {_key(row, others): row for row in manager.filter(**{field.name: target})}
        for row in rows:
            if same := kept.get(_key(row, others)):
                if hasattr(same, "absorb"):
                    same.absorb(row)
                row.delete()
    rows.update(**{field.name: target})


def _unique_with(field: "models.ForeignKey[Any, Any]") -> Iterator[list[str]]:
    """Yield the other fields of each constraint that a robot's rows may break."""
    if field.unique:
        yield []
    for constraint in field.model._meta.constraints:
        if isinstance(constraint, UniqueConstraint) and field.name in constraint.fields:
            yield [name for name in constraint.fields if name != field.name]


def _key(row: models.Model, names: list[str]) -> tuple[Any, ...]:
    return tuple(getattr(row, name) for name in names)


def _move_events(source: int, target: int) -> None:
    """Move raw events a range of keys at a time: they have no index by robot."""
    ends = Event.objects.aggregate(first=Min("pk"), last=Max("pk"))
    if ends["first"] is None:
        return
    for first in range(ends["first"], ends["last"] + 1, RANGE):
        rows = Event.objects.filter(pk__gte=first, pk__lt=first + RANGE, bot=source)
        rows.update(bot=target)
