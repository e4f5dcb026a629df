"""Dead letters: messages that are no events, kept where a person can read, mend and replay them."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from soc.alerts.conditions import Condition
from soc.alerts.models import OPEN, Alert
from soc.core.severity import Severity
from soc.events import refused, shapes, silence
from soc.events.bodies import Malformed
from soc.events.ingest import Ingest
from soc.events.mappings import Mappings
from soc.events.models import BacklogAction, DeadLetter
from soc.events.refused import RefusedHost
from soc.runtime.queues import BY_NAME, STREAMS

LONGEST_KEPT = 1_500_000
"""Bytes of a message that are kept: more cannot be replayed, and no page shows it."""

MOST_WAITING = 20_000
"""Dead letters that are kept for a person: one shipper with a wrong format fills no disk."""

RULE = ("events", "dead-letters")
"""The rule under which waiting dead letters are reported."""

HOST_RULE = "refused"
"""The rule under which the refused messages of one host are reported."""

MOST_HOSTS = 20
"""Hosts that are reported one by one."""

PAGE = "/admin/events/deadletter/?state__exact=waiting"
"""Where a person looks; workers have no addresses of the admin to look it up."""

_SAMPLE = 500
_MOST_KINDS = 5
_PORTION = 1_000
_LONGEST_DETAILS = 300

QUEUE = BY_NAME["events"]
STREAM = STREAMS[QUEUE.name]

State = DeadLetter.State


class Dead(NamedTuple):
    """A message that was refused, and why."""

    body: bytes
    reason: str


class CannotReplayEvent(Exception):
    """A dead letter could not be replayed; the text says why."""


def of(body: bytes | str, reason: str) -> Dead:
    """Return a message with the reason why it is refused."""
    content = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
    if len(content) > LONGEST_KEPT:
        reason += f"; of its {len(content):,} bytes the first {LONGEST_KEPT:,} are kept"
    return Dead(content, reason)


def of_queue(body: bytes | str, headers: Mapping[str, Any], routing_key: str) -> Dead:
    """Return a message of the dead-letter queue with the reason that its headers and key tell.

    What was refused is read once more to find out why. What its workers died of is not touched:
    the next one to read it would die as well. What has never been in a queue came past the
    alternate exchange, for its key (RabbitMQ documentation: Alternate Exchanges).
    """
    death = headers.get("x-first-death-reason")
    if death is None and routing_key != STREAM.routing_key:
        return of(
            body,
            f"it was published with the routing key {routing_key[:80]!r} and not "
            f"{STREAM.routing_key!r}: correct the key in the output of the shipper",
        )
    match death:
        case "delivery_limit":
            deliveries = headers.get("x-delivery-count", QUEUE.delivery_limit + 1)
            return of(
                body,
                f"it was delivered {deliveries} times: its workers died or were cut off while "
                f"they held it; it has not been read",
            )
        case "maxlen":
            return of(body, "the queue was full; it has not been read")
    for part in shapes.read_all(body):
        if isinstance(part.event, Malformed):
            return of(body, str(part.event))
    return of(body, "it can be read, but the database refused it: see the worker's log")


def keep(letters: Sequence[Dead]) -> None:
    """Store dead letters in one transaction; those of the same bytes are one that counts."""
    now = timezone.now()
    rows: dict[bytes, DeadLetter] = {}
    came: Counter[bytes] = Counter()
    for letter in letters:
        digest = hashlib.blake2b(letter.body, digest_size=16).digest()
        came[digest] += 1
        rows[digest] = DeadLetter(
            digest=digest,
            body=letter.body[:LONGEST_KEPT],
            reason=_first_big(letter.reason),
            host=shapes.host_of(letter.body),
            first_seen_at=now,
            last_seen_at=now,
            times=0,
        )
    ordered = [rows[digest] for digest in sorted(rows)]
    with transaction.atomic():
        DeadLetter.objects.bulk_create(ordered, ignore_conflicts=True, batch_size=50)
        for number in sorted(set(came.values())):
            same = [digest for digest in sorted(came) if came[digest] == number]
            DeadLetter.objects.filter(digest__in=same).update(
                times=F("times") + number, last_seen_at=now, state=State.WAITING
            )


def _first_big(text: str) -> str:
    return text[:1].upper() + text[1:]


def replay(letter: DeadLetter, by: str) -> None:
    """Take a dead letter in as if it came now, in one transaction; a mended text goes first.

    Raises:
        CannotReplay: it is settled already, or is still no event that we know.
    """
    with transaction.atomic():
        letter = DeadLetter.objects.select_for_update().get(pk=letter.pk)
        if letter.state != State.WAITING:
            raise CannotReplayEvent(f"it has been {letter.state} already")
        body = letter.edited or bytes(letter.body)
        parts = Mappings().applied(shapes.read_all(body))
        taken = Ingest("replay").take([part.event for part in parts])
        if taken.refusals:
            raise CannotReplayEvent(taken.refusals[0].reason)
        event = parts[0].event
        if taken.counts.dropped and isinstance(event, shapes.WindowsEvent):
            source = f"{event.provider} in {event.channel}"
            raise CannotReplayEvent(f"its source is not allowed: {source}")
        if taken.counts.expired:
            raise CannotReplayEvent("it is from before the time until which events are dropped")
        _settle(DeadLetter.objects.filter(pk=letter.pk), State.REPLAYED, by)


def conditions(now: datetime) -> Iterator[Condition]:
    """Yield whether the stream's and each host's messages are refused.

    Many hosts at once have one cause, and one alert: that of the stream, which explains theirs.
    """
    application, rule = RULE
    found = refused.hosts()
    named = {one.host: one for one in found if one.host}
    is_many = len(named) > MOST_HOSTS
    stream = _of_stream(found, now, is_many=is_many)
    yield stream
    alerts = Alert.objects.filter(OPEN, rule__application=application, rule__name=HOST_RULE)
    known = set(alerts.values_list("subject__name", flat=True))
    for one in named.values():
        # Of many names only robots have alerts: anybody can make up the others.
        if is_many and one.bot is None and one.host not in known:
            continue
        yield Condition(
            application=application,
            rule=HOST_RULE,
            subject=one.host,
            severity=Severity.WARNING,
            observed_at=now,
            summary=f"{one.words} They wait as dead letters.",
            link=PAGE if one.bot is None else silence.page_of(one.bot),
            site=one.site,
            parent=(rule, stream.subject) if is_many else None,
        )
    for host in sorted(known - set(named)):
        yield Condition(application, HOST_RULE, host, Severity.OK, now)


def _of_stream(found: Sequence[RefusedHost], now: datetime, *, is_many: bool) -> Condition:
    """Return how the whole stream is, with the hosts and reasons of the newest."""
    application, rule = RULE
    waiting = DeadLetter.objects.filter(state=State.WAITING)
    number = waiting.count()
    newest = Counter(waiting.values_list("host", "reason")[:_SAMPLE])
    kinds = [
        f"{count} of {host or 'an unknown host'}: {reason}"
        for (host, reason), count in newest.most_common(_MOST_KINDS)
    ]
    severity = Severity.OK
    if number * 2 > MOST_WAITING:
        severity = Severity.CRITICAL
    elif is_many or any(not one.host for one in found):
        severity = Severity.WARNING
    return Condition(
        application=application,
        rule=rule,
        subject="event stream",
        severity=severity,
        observed_at=now,
        summary=f"{number} messages are not read as events and wait for a person; beyond "
        f"{MOST_WAITING:,} the oldest are deleted."
        if number
        else "",
        facts={f"Newest {min(number, _SAMPLE)}": "\n".join(kinds)} if kinds else {},
        link=PAGE,
    )


def drop_excess() -> Counter[str]:
    """Delete the oldest waiting dead letters beyond ``MOST_WAITING``; return how many by host.

    What was dropped is written down with the hosts that it was of.
    """
    waiting = DeadLetter.objects.filter(state=State.WAITING)
    dropped: Counter[str] = Counter()
    while (excess := waiting.count() - MOST_WAITING) > 0:
        oldest = waiting.order_by("last_seen_at", "pk").values_list("pk", "host")
        portion = dict(oldest[: min(excess, _PORTION)])
        DeadLetter.objects.filter(pk__in=portion).delete()
        dropped.update(portion.values())
    if dropped:
        BacklogAction.objects.create(
            queue=QUEUE.dead_letter_name,
            kind=BacklogAction.Kind.CAP,
            by="housekeeping",
            reason=f"more than {MOST_WAITING:,} dead letters waited",
            details=_by_host(dropped),
            messages=dropped.total(),
        )
    return dropped


def _by_host(dropped: Counter[str]) -> str:
    most = sorted(dropped.items(), key=lambda one: (-one[1], one[0]))[:_MOST_KINDS]
    kinds = [f"{count:,} of {host or 'an unknown host'}" for host, count in most]
    others = len(dropped) - len(kinds)
    return ", ".join([*kinds, *([f"{others} more hosts"] if others else [])])[:_LONGEST_DETAILS]


def discard(letters: QuerySet[DeadLetter], by: str) -> int:
    """Settle dead letters that nobody needs; return how many were waiting."""
    return _settle(letters.filter(state=State.WAITING), State.DISCARDED, by)


def _settle(letters: QuerySet[DeadLetter], state: State, by: str) -> int:
    return letters.order_by().update(state=state, settled_at=timezone.now(), settled_by=by)


def replay_all(letters: Iterable[DeadLetter], by: str) -> tuple[int, list[tuple[DeadLetter, str]]]:
    """Replay each; return how many worked, and why the others did not."""
    done, failed = 0, []
    for letter in letters:
        try:
            replay(letter, by)
        except CannotReplayEvent as error:
            failed.append((letter, str(error)))
        else:
            done += 1
    return done, failed
