"""Checks of the broker: alarms, and whether it has what the site's definitions say."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from soc.doctor.facts import Facts
from soc.doctor.findings import Finding, critical, warning
from soc.runtime.queues import QUEUES

FULL = 0.5
"""The share of a queue's longest length from which it backs up, as on the board."""

AGAIN = "`make up` imports env/<site>/rabbitmq/definitions.json again"
_KEYS = {
    "users": ("name",),
    "permissions": ("user", "vhost"),
    "topic_permissions": ("user", "vhost", "exchange"),
    "exchanges": ("name", "vhost"),
    "queues": ("name", "vhost"),
    "policies": ("name", "vhost"),
    "bindings": ("source", "destination", "routing_key"),
}
_COMPARED = {
    "users": ("password_hash", "tags"),
    "permissions": ("configure", "write", "read"),
    "topic_permissions": ("write", "read"),
    "exchanges": ("type",),
    "queues": (),
    "policies": ("definition",),
    "bindings": (),
}
_SINGULAR = {"policies": "policy"}


def check(facts: Facts) -> Iterator[Finding]:
    """Yield what is wrong with the broker."""
    status, queues, flags, present = facts.broker
    if status is None:
        yield critical(
            "broker",
            f"RabbitMQ does not answer: {facts.error('broker') or 'no answer in time'}",
            "`make logs S=rabbitmq`",
            follows=not facts.runs("rabbitmq"),
        )
        return
    yield from _alarms(status)
    path = facts.site.folder / "rabbitmq" / "definitions.json"
    if present is not None and path.exists():
        yield from differences(json.loads(path.read_text(encoding="utf-8")), present)
    yield from _queues(facts, queues or [])
    yield from _flags(flags or [])


def _alarms(status: Mapping[str, Any]) -> Iterator[Finding]:
    alarms = json.dumps(status.get("alarms", []))
    free, least = status.get("disk_free", 0), status.get("disk_free_limit", 0)
    if "disk" in alarms or (isinstance(free, int) and free < least):
        yield critical(
            "broker",
            f"the disk alarm: {free / 1e6:.0f} MB are free, RabbitMQ takes no messages below "
            f"{least / 1e6:.0f} MB",
            "free space where its volume lies; it goes on by itself",
        )
    if "memory" in alarms:
        limit = status.get("vm_memory_high_watermark_limit", 0)
        used = status.get("memory", {}).get("total", {}).get("rss", 0)
        yield critical(
            "broker",
            f"the memory alarm: RabbitMQ uses {used / 1e6:.0f} MB and takes no messages above "
            f"{limit / 1e6:.0f} MB",
            "let the queues be emptied (a queue without a consumer is named here), or raise "
            "SOC_RABBITMQ_MEMORY, then `make up`",
        )


def differences(expected: Mapping[str, Any], present: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what the broker has not, or has otherwise, of what the site's definitions say."""
    for kind, keys in _KEYS.items():
        found = {_key(one, keys): one for one in present.get(kind, [])}
        name = _SINGULAR.get(kind, kind.removesuffix("s")).replace("_", " ")
        for wanted in expected.get(kind, []):
            who = " ".join(str(wanted[key]) for key in keys if key != "vhost")
            one = found.get(_key(wanted, keys))
            if one is None:
                yield critical("broker", f"RabbitMQ lacks the {name} {who}", AGAIN)
            elif wrong := [f for f in _COMPARED[kind] if _value(one, f) != _value(wanted, f)]:
                text = f"RabbitMQ has another {' and '.join(wrong)} for the {name} {who}"
                yield critical("broker", text, AGAIN)


def _key(one: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(one.get(key, "/") for key in keys)


def _value(one: Mapping[str, Any], field: str) -> Any:
    value = one.get(field)
    return sorted(value) if isinstance(value, list) else value


def _queues(facts: Facts, queues: list[Mapping[str, Any]]) -> Iterator[Finding]:
    states = {state["name"]: state for state in queues}
    for queue in QUEUES:
        state = states.get(queue.name)
        if state is None:
            continue
        if not state["consumers"]:
            yield critical(
                "broker",
                f"the queue {queue.name} has no consumer; {state['messages']} messages wait",
                f"`docker compose restart {queue.service}`; `make logs S={queue.service}`",
                follows=not facts.runs(queue.service),
            )
        if state["messages"] >= queue.max_length * FULL:
            yield critical(
                "broker",
                f"the queue {queue.name} backs up: {state['messages']} messages wait",
                f"`make logs S={queue.service}`; `docker compose up --detach --scale "
                f"{queue.service}=2 {queue.service}` adds a worker",
            )
    for state in queues:
        members, online = state.get("members"), state.get("online")
        if isinstance(members, list) and isinstance(online, list) and len(online) < len(members):
            away = ", ".join(sorted({*members} - {*online}))
            text = f"the queue {state['name']} lacks its members on {away}"
            yield critical("broker", text, "start those brokers again")


def _flags(flags: list[Mapping[str, Any]]) -> Iterator[Finding]:
    off = [f["name"] for f in flags if f["state"] != "enabled" and f["stability"] == "stable"]
    if off:
        yield warning(
            "broker",
            f"stable feature flags are off: {', '.join(off)}",
            "`make up` enables them; the next series of RabbitMQ demands them",
        )
