"""Backlogs from the command line: how far behind the queues are, and what to do about it.

Anyone who may empty a queue is its own worker: ``purge`` runs in that worker's container, under its
identity, and nobody else is given the right.
"""

import sys
import time
from argparse import ArgumentParser, ArgumentTypeError
from datetime import timedelta
from typing import Any

import amqp
from django.conf import settings
from django.core.management import BaseCommand, CommandError, CommandParser
from django.utils import timezone
from kombu.exceptions import OperationalError

from soc.alerts.spans import in_words
from soc.events import backlog
from soc.events.ingest import REMEMBERED
from soc.events.models import BacklogAction, StreamSettings
from soc.runtime.celery import app
from soc.runtime.queues import BY_NAME, Queue

NOBODY = "command line"
LOOK = 5.0
"""Seconds between two looks at a queue that is drained."""

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
Kind = BacklogAction.Kind


def _span(text: str) -> timedelta:
    try:
        span = timedelta(**{_UNITS[text[-1:]]: int(text[:-1])})
    except (KeyError, ValueError, OverflowError):
        raise ArgumentTypeError(f"{text!r} is no time like 30m, 2h or 1d") from None
    if span <= timedelta(0):
        raise ArgumentTypeError(f"{text!r} is not in the past")
    return span


class Command(BaseCommand):
    """What an operator does about a backlog."""

    help = "Shows how far behind the queues are; drains, expires or purges one of them."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the actions."""
        does = parser.add_subparsers(dest="action", required=True)
        does.add_parser("show", help="every queue with its depth, age, rates and time to drain")
        for kind in Kind:
            action = does.add_parser(kind.value, help=kind.label)
            _declare(action)
            if kind == Kind.EXPIRE:
                action.add_argument(
                    "--older-than", type=_span, required=True, metavar="TIME", help="30m, 2h, 1d"
                )
            if kind == Kind.DRAIN:
                action.add_argument("--no-wait", action="store_true", help="do not watch it drain")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do one of the actions.

        Raises:
            CommandError: it is not confirmed, or cannot be done here.
        """
        if options["action"] == "show":
            self._show()
            return
        queue = BY_NAME[options["queue"]]
        kind = Kind(options["action"])
        _refuse_unless_possible(queue, kind)
        self._confirm(queue, kind, options["yes"])
        getattr(self, f"_{kind}")(queue, options)

    def _show(self) -> None:
        head = ("queue", "waiting", "dead", "oldest", "in/s", "out/s", "grows/s", "empty in")
        rows = [head, *(_row(one) for one in backlog.read(timezone.now()))]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
            self.stdout.write("  ".join((row[0].ljust(widths[0]), *cells)))

    def _confirm(self, queue: Queue, kind: Kind, yes: str) -> None:
        if yes == queue.name:
            return
        if yes:
            raise CommandError(f"Nothing was done: --yes says {yes}, not {queue.name}.")
        if not sys.stdin.isatty():
            raise CommandError(f"Nothing was done: confirm with --yes {queue.name}.")
        if input(f"{queue.name}: {kind.label}. Type the queue's name to go on: ") != queue.name:
            raise CommandError("Nothing was done.")

    # --- What is done ---------------------------------------------------------------------------

    def _drain(self, queue: Queue, options: dict[str, Any]) -> None:
        now = timezone.now()
        depth = _depth(queue)
        _record(queue, Kind.DRAIN, options, f"what happened before {now:%F %T} UTC", depth)
        _set(quiet_before=now)
        self.stdout.write(
            f"Within {REMEMBERED:.0f} s events from before now count as stale: they are "
            f"stored and alert nobody."
        )
        while not options["no_wait"] and (depth := _depth(queue)) != 0:
            one = _state(queue)
            left = in_words(one.to_drain) if one.to_drain else "unknown"
            self.stderr.write(f"\r{depth} wait, empty in {left}        ", ending="")
            self.stderr.flush()
            time.sleep(LOOK)

    def _expire(self, queue: Queue, options: dict[str, Any]) -> None:
        limit = timezone.now() - options["older_than"]
        _record(queue, Kind.EXPIRE, options, f"what happened before {limit:%F %T} UTC")
        _set(expired_before=limit)
        self.stdout.write(
            f"Within {REMEMBERED:.0f} s events from before {limit:%F %T} UTC are counted "
            f"and dropped."
        )

    def _purge(self, queue: Queue, options: dict[str, Any]) -> None:
        row = _record(queue, Kind.PURGE, options, "")
        try:
            with app.connection_for_read() as connection, connection.channel() as channel:
                row.messages = channel.queue_purge(queue.name)
        except (OSError, amqp.AMQPError, OperationalError) as error:
            row.details = f"failed: {error}"[:300]
            raise CommandError(f"The broker refused: {error}") from error
        finally:
            row.save()
        self.stdout.write(
            f"{row.messages} messages are gone; what a worker holds at this moment is not."
        )


def _declare(parser: ArgumentParser) -> None:
    parser.add_argument("queue", choices=list(BY_NAME), metavar="QUEUE")
    parser.add_argument("--yes", default="", metavar="QUEUE", help="the name again: do not ask")
    parser.add_argument("--by", default=NOBODY, help="who; it is recorded")
    parser.add_argument("--reason", default="", help="why; it is recorded")


def _refuse_unless_possible(queue: Queue, kind: Kind) -> None:
    if kind != Kind.PURGE:
        if not queue.stream:
            raise CommandError(
                f"{queue.name} holds tasks, which expire by themselves: there is only purge."
            )
        return
    if queue.service != settings.SERVICE and not settings.EMBEDDED:
        raise CommandError(
            f"Only {queue.service} may take messages from {queue.name}: docker compose exec "
            f"{queue.service} python3 manage.py backlog purge {queue.name}"
        )


def _record(
    queue: Queue, kind: Kind, options: dict[str, Any], details: str, messages: int | None = None
) -> BacklogAction:
    """Write down what is about to be done, before it is."""
    return BacklogAction.objects.create(
        queue=queue.name,
        kind=kind,
        by=options["by"][:150],
        reason=options["reason"][:200],
        details=details,
        messages=messages,
    )


def _set(**values: Any) -> None:
    StreamSettings.objects.update_or_create(pk=StreamSettings.current().pk, defaults=values)


def _state(queue: Queue) -> backlog.Backlog:
    return next(one for one in backlog.read(timezone.now()) if one.queue == queue)


def _depth(queue: Queue) -> int | None:
    return _state(queue).depth


def _row(one: backlog.Backlog) -> tuple[str, ...]:
    left = "never" if one.depth and one.change is not None and one.change >= 0 else "?"
    return (
        one.queue.name,
        *("?" if number is None else f"{number:,}" for number in (one.depth, one.dead)),
        "-" if one.age is None else f"< {in_words(one.age)}",
        *("-" if rate is None else f"{rate:.1f}" for rate in (one.came, one.taken)),
        "?" if one.change is None else f"{one.change:+.1f}",
        left if one.to_drain is None else in_words(one.to_drain),
    )
