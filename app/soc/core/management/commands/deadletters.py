"""Dead letters of task queues from the command line."""

from argparse import ArgumentParser
from typing import Any

from django.core.management import BaseCommand, CommandError, CommandParser
from django.db.models import QuerySet

from soc.common.times import local
from soc.core import dead_letters
from soc.core.models import DeadTask
from soc.runtime.queues import TASK_QUEUES

NOBODY = "command line"


class Command(BaseCommand):
    """What an operator does about dead letters without a browser."""

    help = "Lists, shows, replays and discards dead letters of task queues."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the actions."""
        does = parser.add_subparsers(dest="action", required=True)
        listing = does.add_parser("list", help="the latest first")
        listing.add_argument("--state", default="waiting", choices=[*DeadTask.State.values, "all"])
        listing.add_argument("--limit", type=int, default=50)
        show = does.add_parser("show", help="the message and what became of it")
        show.add_argument("id", type=int)
        _declare_settling(does.add_parser("replay", help="run the tasks once more"))
        discard = does.add_parser("discard", help="settle what nobody needs")
        _declare_settling(discard)
        discard.add_argument("--reason", default="", help="why; it is recorded")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do one of the actions.

        Raises:
            CommandError: a dead letter does not exist or cannot be replayed.
        """
        getattr(self, f"_{options['action']}")(options)

    def _list(self, options: dict[str, Any]) -> None:
        letters = DeadTask.objects.all()
        if options["state"] != "all":
            letters = letters.filter(state=options["state"])
        for letter in letters.defer("body")[: options["limit"]]:
            self.stdout.write(
                f"{letter.pk:>8}  {local(letter.last_seen_at)}  {letter.state:<9}  "
                f"{letter.times:>4} times  {letter}  {letter.reason}"
            )
        total = letters.count()
        if total > options["limit"]:
            self.stderr.write(f"These are {options['limit']} of {total:,}; --limit shows more.")

    def _show(self, options: dict[str, Any]) -> None:
        letter = DeadTask.objects.filter(pk=options["id"]).first()
        if letter is None:
            raise CommandError(f"There is no dead letter {options['id']}.")
        self.stdout.write(f"{letter}, id {letter.task_id or 'unknown'}\n{letter.reason}")
        if letter.settled_at:
            by = f"{letter.state} by {letter.settled_by} at {local(letter.settled_at)}"
            self.stdout.write(f"{by}: {letter.note}" if letter.note else by)
        self.stdout.write(letter.body)

    def _replay(self, options: dict[str, Any]) -> None:
        letters = _chosen(options)
        done, failed = dead_letters.replay_all(letters.order_by("pk"), options["by"])
        self.stdout.write(f"{done} replayed: beat starts them within 5 s")
        if failed:
            lines = "\n".join(f"{letter.pk}: {reason}" for letter, reason in failed)
            raise CommandError(f"{len(failed)} could not be replayed:\n{lines}")

    def _discard(self, options: dict[str, Any]) -> None:
        count = dead_letters.discard(_chosen(options), options["by"], options["reason"])
        self.stdout.write(f"{count} discarded")


def _declare_settling(parser: ArgumentParser) -> None:
    parser.add_argument("ids", nargs="*", type=int, metavar="ID")
    parser.add_argument("--queue", choices=[queue.name for queue in TASK_QUEUES], help="all of it")
    parser.add_argument("--all", action="store_true", help="every one that waits")
    parser.add_argument("--by", default=NOBODY, help="who; it is recorded")


def _chosen(options: dict[str, Any]) -> QuerySet[DeadTask]:
    waiting = DeadTask.objects.filter(state=DeadTask.State.WAITING)
    if options["all"]:
        return waiting
    if options["queue"]:
        return waiting.filter(queue=options["queue"])
    if not options["ids"]:
        raise CommandError("Nothing was done: name dead letters, a --queue, or --all.")
    found = DeadTask.objects.filter(pk__in=options["ids"])
    if missing := sorted(set(options["ids"]) - set(found.values_list("pk", flat=True))):
        names = ", ".join(map(str, missing))
        raise CommandError(f"Nothing was done: there is no dead letter {names}.")
    return found
