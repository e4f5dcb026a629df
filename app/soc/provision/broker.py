"""The broker's definitions file: topology, users and permissions, rendered from the catalogue.

Format: RabbitMQ documentation, "Schema Definition Export and Import". Nothing is ever declared by
hand in a console, and no service may declare a task queue: a wiped broker comes back from this.
"""

import base64
import hashlib
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kombu.transport.native_delayed_delivery import (
    CELERY_DELAYED_DELIVERY_EXCHANGE,
    MAX_LEVEL,
    level_name,
)

from soc.provision.shippers import RegisteredShipper
from soc.runtime.queues import (
    BY_NAME,
    DEAD_LETTER_EXCHANGE,
    QUEUES,
    QUORUM,
    STREAMS,
    TASK_EXCHANGE,
    TASK_QUEUES,
    Queue,
)

EXPIRED_QUEUE = "soc.expired"
MONITOR_USER = "monitor"
_DAY_MS = 24 * 3600 * 1000
_EVENTS = "celeryev"
_CONTROL = "celery.pidbox"
_REPLIES = "reply.celery.pidbox"
_MAIL = BY_NAME["email"]
_SAMPLED = BY_NAME["shared"]
_EVENTS_QUEUE = BY_NAME["events"].name

Definition = dict[str, Any]


def password_hash(password: str) -> str:
    """Hash a password as ``rabbit_password_hashing_sha256`` does: salt, SHA-256, base64."""
    return _salted(secrets.token_bytes(4), password)


def is_hash_of(hashed: str, password: str) -> bool:
    """Return whether ``password_hash`` made this hash of this password."""
    return secrets.compare_digest(hashed, _salted(base64.b64decode(hashed)[:4], password))


def _salted(salt: bytes, password: str) -> str:
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def definitions(
    password_hashes: Mapping[str, str], shippers: Sequence[RegisteredShipper] = ()
) -> Definition:
    """Return the definitions of a site's broker, whose events ``shippers`` publish.

    Services log in by certificate and have no password, and who has none cannot log in by one.
    These have: ``monitor``, as whom the management API is asked, and who publishes from outside,
    because Logstash can log in in no other way; a certificate is asked of them all the same.

    What a shipper publishes reaches the stream with any routing key, through an exchange that is
    the shipper's alone, so that every message says by its exchange whose it is.
    """
    return {
        # Celery's control queues: where one broker of several dies, a durable classic queue that
        # it held can neither be used nor declared again, and workers without it take no task.
        "vhosts": [{"name": "/", "metadata": {"default_queue_type": "quorum"}}],
        "users": [
            _user(MONITOR_USER, password_hashes, "monitoring"),
            *(_user(name, password_hashes) for name, _, _, _ in _service_permissions()),
            *(_user(shipper.user, password_hashes) for shipper in shippers),
        ],
        "permissions": [
            _permission(MONITOR_USER),
            *(_permission(*permissions) for permissions in _service_permissions()),
            *map(_permission_of_shipper, shippers),
        ],
        "topic_permissions": [
            {"user": user, "vhost": "/", "exchange": exchange, "write": keys, "read": ".*"}
            for user, exchange, keys in (
                *_routing_keys(),
                *((shipper.user, shipper.exchange, ".*") for shipper in shippers),
            )
        ],
        "policies": list(_policies()),
        "exchanges": [
            *_exchanges(),
            *(_exchange(shipper.exchange, "topic") for shipper in shippers),
        ],
        "queues": list(_queues()),
        "bindings": [
            *_bindings(),
            *(_binding(shipper.exchange, _EVENTS_QUEUE, "#") for shipper in shippers),
        ],
    }


def _user(name: str, password_hashes: Mapping[str, str], *tags: str) -> Definition:
    return {
        "name": name,
        "password_hash": password_hashes.get(name, ""),
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": list(tags),
    }


def _any_of(*patterns: str) -> str:
    return f"^({'|'.join(patterns)})$" if patterns else "^$"


def _service_permissions() -> Iterator[tuple[str, str, str, str]]:
    """Yield (user, configure, write, read), the narrowest expressions with which each works.

    No service may configure an exchange, and only a process's own control queues are declared. The
    right to write to a queue is the right to bind it; that to publish by a queue's name is the
    right to write to ``amq.default``, which nobody has.
    """
    tasks, delayed = re.escape(TASK_EXCHANGE), level_name(MAX_LEVEL)
    events, control, replies = re.escape(_EVENTS), re.escape(_CONTROL), re.escape(_REPLIES)
    for queue in QUEUES:
        mailbox = rf"{queue.name}@.+\.celery\.pidbox"
        yield (
            queue.service,
            _any_of(mailbox),
            _any_of(*([] if queue.stream else [tasks, delayed]), events, replies, mailbox),
            _any_of(queue.name, *_dead_letters_read_by(queue), control, mailbox),
        )
    for stream in STREAMS.values():
        # Logstash declares the exchange, which is there already, whenever it connects.
        exchange = _any_of(re.escape(stream.exchange))
        yield stream.publisher, exchange, exchange, _any_of()
    yield "beat", _any_of(), _any_of(tasks, delayed), _any_of()
    receiver, reply_queue = r"celeryev\..+", r".+\.reply\.celery\.pidbox"
    yield (
        "flower",
        _any_of(receiver, reply_queue),
        _any_of(control, receiver, reply_queue),
        _any_of(events, receiver, replies, reply_queue),
    )


def _routing_keys() -> Iterator[tuple[str, str, str]]:
    """Yield (user, exchange, expression of the keys that it may publish with).

    A worker queues tasks for itself, as a retry does, and wakes the one that sends mail; for
    others only beat does. The key of a delayed task begins with its delay in as many binary
    digits as there are levels. What a shipper publishes with a mistaken key goes to the dead
    letters: a refusal would close its channel, and Logstash publishes to the closed one for ever.
    """
    digits = rf"([01]\.){{{MAX_LEVEL + 1}}}"
    for queue in QUEUES:
        yield queue.service, _EVENTS, r"^(task|worker)\.[a-z]+$"
        if queue.stream:
            yield queue.stream.publisher, queue.stream.exchange, ".*"
        else:
            keys = {queue.routing_key: None, _MAIL.routing_key: None}
            yield from _task_keys(queue.service, digits, *keys)
    yield from _task_keys("beat", digits, *(queue.routing_key for queue in TASK_QUEUES))


def _task_keys(user: str, digits: str, *keys: str) -> Iterator[tuple[str, str, str]]:
    yield user, TASK_EXCHANGE, _any_of(*keys)
    yield user, level_name(MAX_LEVEL), f"^{digits}({'|'.join(keys)})$"


def _dead_letters_read_by(queue: Queue) -> list[str]:
    """Return the queues of dead letters that a queue's worker empties.

    The worker of a stream takes its own; that of the samples those of every task queue, so that
    none of them is lost with a worker that dies of its messages.
    """
    if queue.stream:
        return [re.escape(queue.dead_letter_name)]
    return [re.escape(q.dead_letter_name) for q in TASK_QUEUES] if queue is _SAMPLED else []


def _permission(
    user: str, configure: str = "^$", write: str = "^$", read: str = "^$"
) -> Definition:
    return {"user": user, "vhost": "/", "configure": configure, "write": write, "read": read}


def _permission_of_shipper(shipper: RegisteredShipper) -> Definition:
    """Let a shipper declare its exchange, as Logstash does whenever it connects, and publish."""
    exchange = _any_of(re.escape(shipper.exchange))
    return _permission(shipper.user, exchange, exchange)


def _exchange(name: str, kind: str) -> Definition:
    return {
        "name": name,
        "vhost": "/",
        "type": kind,
        "durable": True,
        "auto_delete": False,
        "internal": False,
        "arguments": {},
    }


def _queue(name: str, arguments: Definition) -> Definition:
    return {
        "name": name,
        "vhost": "/",
        "durable": True,
        "auto_delete": False,
        "arguments": {**QUORUM, **arguments},
    }


def _policy(name: str, definition: Definition, apply_to: str = "queues") -> Definition:
    return {
        "vhost": "/",
        "name": name,
        "pattern": f"^{re.escape(name)}$",
        "apply-to": apply_to,
        "priority": 0,
        "definition": definition,
    }


def _binding(
    source: str,
    destination: str,
    key: str,
    *,
    kind: str = "queue",
    arguments: Definition | None = None,
) -> Definition:
    return {
        "source": source,
        "vhost": "/",
        "destination": destination,
        "destination_type": kind,
        "routing_key": key,
        "arguments": arguments or {},
    }


def _levels() -> range:
    return range(MAX_LEVEL, -1, -1)


def _below(level: int) -> str:
    """Return where a delay level's messages go when its time is up."""
    return level_name(level - 1) if level else CELERY_DELAYED_DELIVERY_EXCHANGE


def _exchanges() -> Iterator[Definition]:
    yield _exchange(TASK_EXCHANGE, "topic")
    yield _exchange(DEAD_LETTER_EXCHANGE, "headers")
    yield _exchange(_EVENTS, "topic")
    yield _exchange(_CONTROL, "fanout")
    yield _exchange(_REPLIES, "direct")
    for stream in STREAMS.values():
        yield _exchange(stream.exchange, "topic")
        yield _exchange(stream.unrouted, "fanout")
    yield _exchange(CELERY_DELAYED_DELIVERY_EXCHANGE, "topic")
    for level in _levels():
        yield _exchange(level_name(level), "topic")


def _queues() -> Iterator[Definition]:
    for queue in QUEUES:
        yield _queue(queue.name, {})
        yield _queue(queue.dead_letter_name, {})
    yield _queue(EXPIRED_QUEUE, {})
    for level in _levels():
        yield _queue(
            level_name(level),
            {
                "x-overflow": "reject-publish",
                "x-message-ttl": 2**level * 1000,
                "x-dead-letter-exchange": _below(level),
                "x-dead-letter-strategy": "at-least-once",
            },
        )


def _policies() -> Iterator[Definition]:
    for queue in QUEUES:
        yield _policy(queue.name, dict(queue.policy))
        yield _policy(queue.dead_letter_name, _kept(days=30, messages=10_000))
    yield _policy(EXPIRED_QUEUE, _kept(days=1, messages=1_000))
    for stream in STREAMS.values():
        alternate = {"alternate-exchange": stream.unrouted}
        yield _policy(stream.exchange, alternate, apply_to="exchanges")


def _kept(*, days: int, messages: int) -> Definition:
    return {"message-ttl": days * _DAY_MS, "max-length": messages, "overflow": "drop-head"}


def _bindings() -> Iterator[Definition]:
    for queue in QUEUES:
        yield from _dead_letter_bindings(queue)
        if queue.stream:
            yield _binding(queue.stream.exchange, queue.name, queue.stream.routing_key)
            yield _binding(queue.stream.unrouted, queue.dead_letter_name, "")
            continue
        # "#." also takes the key of a delayed task, which starts with 28 words of delay.
        yield _binding(TASK_EXCHANGE, queue.name, f"#.{queue.routing_key}")
        yield _binding(
            CELERY_DELAYED_DELIVERY_EXCHANGE,
            TASK_EXCHANGE,
            f"#.{queue.routing_key}",
            kind="exchange",
        )
    for level in _levels():
        skipped = "*." * (MAX_LEVEL - level)
        yield _binding(level_name(level), level_name(level), f"{skipped}1.#")
        yield _binding(level_name(level), _below(level), f"{skipped}0.#", kind="exchange")


def _dead_letter_bindings(queue: Queue) -> Iterator[Definition]:
    """Park what needs a person apart from what merely came too late.

    A periodic task that nobody took in time is expected after an outage; it must not hide the
    messages that a worker refused.
    """
    targets = {
        "rejected": queue.dead_letter_name,
        "delivery_limit": queue.dead_letter_name,
        "expired": EXPIRED_QUEUE,
        "maxlen": queue.dead_letter_name,
    }
    for reason, target in targets.items():
        yield _binding(
            DEAD_LETTER_EXCHANGE,
            target,
            f"{queue.routing_key}.{reason}",
            arguments={
                "x-match": "all-with-x",
                # The first death of a delayed task was in the queue of its delay.
                "x-last-death-queue": queue.name,
                "x-last-death-reason": reason,
            },
        )
