"""The event stream from the command line: simulated robots, dead letters and shippers."""

import json
import os
import subprocess
import sys
import time
from argparse import ArgumentParser, FileType
from datetime import datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from django.conf import settings
from django.core.management import BaseCommand, CommandError, CommandParser
from django.db.models import QuerySet
from django.utils import timezone

import soc
from soc.common.times import local
from soc.events import dead, replay, simulation
from soc.events.models import DeadLetter, Shipper
from soc.events.publisher import STREAM, EventPublisher

NOBODY = "command line"
PROGRESS = 1.0
"""Seconds between two lines of progress."""

LONGEST_NAP = 0.2


class Command(BaseCommand):
    """What an operator does with the stream without a browser."""

    help = "Simulates robots, and shows, replays and discards dead letters."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the actions."""
        does = parser.add_subparsers(dest="action", required=True)
        _declare_simulate(does.add_parser("simulate", help="publish what robots would log"))
        letters = does.add_parser("dead", help="dead letters: messages that are no events")
        _declare_dead(letters)
        _declare_recordings(does)
        _declare_shipper(does.add_parser("shipper", help="note what `make shipper` has done"))

    def handle(self, *args: Any, **options: Any) -> None:
        """Do one of the actions.

        Raises:
            CommandError: what is asked for does not exist or cannot be done.
        """
        if options["action"] == "simulate":
            self._simulate(options)
        elif options["action"] in ("record", "replay"):
            getattr(self, f"_{options['action']}")(options)
        elif options["action"] == "shipper":
            getattr(self, f"_shipper_{options['what']}")(options)
        else:
            getattr(self, f"_dead_{options['what']}")(options)

    # --- Simulated robots -----------------------------------------------------------------------

    def _simulate(self, options: dict[str, Any]) -> None:
        try:
            faults = simulation.Faults.parse(options["faults"])
        except ValueError as error:
            raise CommandError(f"--faults: {error}") from None
        what = [a for a in simulation.activities() if a.kind in (options["only"] or (a.kind,))]
        if not what:
            known = ", ".join(activity.kind for activity in simulation.activities())
            raise CommandError(f"--only: robots do one of {known}")
        cast = simulation.robots(options["bots"], options["sites"])
        natural = len(cast) * sum(activity.per_hour for activity in what) / 3600
        pace = options["rate"] / natural if options["rate"] else 1.0
        play = simulation.Play(cast, what, faults, pace, options["seed"])
        publisher = EventPublisher(options["identity"], lambda text: self.stderr.write(f"\n{text}"))
        start = time.monotonic()
        try:
            self._run(play, publisher, options)
            publisher.close()
        except KeyboardInterrupt:
            self.stderr.write("\nstopped")
        seconds = round(time.monotonic() - start, 1)
        counts = {name: play.counts[name] for name in ("good", "stale", "malformed", "duplicate")}
        done = {"confirmed": publisher.confirmed, "resent": publisher.resent, "seconds": seconds}
        self.stdout.write(json.dumps(counts | done))

    def _run(
        self, play: simulation.Play, publisher: EventPublisher, options: dict[str, Any]
    ) -> None:
        start = time.monotonic()
        end = options["minutes"] * 60
        told_at, sent = 0.0, 0
        while (passed := time.monotonic() - start) < end and sent < options["events"]:
            if passed - told_at >= PROGRESS:
                told_at = passed
                self._progress(publisher, sent, passed)
            if (wait := play.due() - passed) > 0 and not options["hurry"]:
                publisher.turn()
                time.sleep(min(wait, LONGEST_NAP))
                continue
            for message in play.next(timezone.now()):
                sent += message.kind != "duplicate"
                publisher.publish(message.body)
        self._progress(publisher, sent, time.monotonic() - start)
        self.stderr.write("")

    def _progress(self, publisher: EventPublisher, sent: int, passed: float) -> None:
        text = f"\r{passed:6.0f} s  {sent:,} sent, {publisher.confirmed:,} confirmed"
        again = f", {publisher.resent:,} sent again" if publisher.resent else ""
        self.stderr.write(f"{text}{again}, {sent / max(passed, 1):,.1f}/s ", ending="")
        self.stderr.flush()

    # --- Recordings -----------------------------------------------------------------------------

    def _record(self, options: dict[str, Any]) -> None:
        until = _time(options["until"]) if options["until"] else timezone.now()
        for line in replay.record(_time(options["since"]), until):
            self.stdout.write(line)

    def _replay(self, options: dict[str, Any]) -> None:
        end = [_time(options["as_of"]).isoformat()] if options["as_of"] else []
        with NamedTemporaryFile("w", encoding="utf-8", suffix=".json") as copied:
            copied.write(replay.copied())
            copied.flush()
            child = subprocess.run(
                [sys.executable, "-m", "soc.events.dry_run", copied.name, options["file"], *end],
                env={**os.environ, "PYTHONPATH": str(Path(soc.__file__).parents[1])},
                check=False,
            )
        if child.returncode:
            raise CommandError("The recording was not replayed.")

    # --- Shippers -------------------------------------------------------------------------------

    def _shipper_add(self, options: dict[str, Any]) -> None:
        values = {"kind": options["kind"], "created_at": timezone.now(), "revoked_at": None}
        Shipper.objects.update_or_create(name=options["name"], defaults=values)

    def _shipper_revoke(self, options: dict[str, Any]) -> None:
        Shipper.objects.filter(name=options["name"]).update(revoked_at=timezone.now())

    # --- Dead letters ---------------------------------------------------------------------------

    def _dead_list(self, options: dict[str, Any]) -> None:
        letters = DeadLetter.objects.all()
        if options["state"] != "all":
            letters = letters.filter(state=options["state"])
        for letter in letters.defer("body", "edited")[: options["limit"]]:
            self.stdout.write(
                f"{letter.pk:>8}  {local(letter.first_seen_at)}  {letter.state:<9}  "
                f"{letter.times:>4} times  {letter.host or '-':<20}  {letter.reason}"
            )
        total = letters.count()
        if total > options["limit"]:
            self.stderr.write(f"These are {options['limit']} of {total:,}; --limit shows more.")

    def _dead_show(self, options: dict[str, Any]) -> None:
        letter = self._one(options["id"])
        self.stdout.write(letter.edited or letter.text)

    def _dead_edit(self, options: dict[str, Any]) -> None:
        letter = self._one(options["id"])
        with options["file"] as file:
            text = file.read()
        DeadLetter.objects.filter(pk=letter.pk).update(edited=text)
        self.stdout.write(f"{letter.pk} will be replayed with the new text")

    def _dead_replay(self, options: dict[str, Any]) -> None:
        letters = self._chosen(options)
        done, failed = dead.replay_all(letters.order_by("pk"), options["by"])
        self.stdout.write(f"{done} replayed")
        if failed:
            lines = "\n".join(f"{letter.pk}: {reason}" for letter, reason in failed)
            raise CommandError(f"{len(failed)} could not be replayed:\n{lines}")

    def _dead_discard(self, options: dict[str, Any]) -> None:
        self.stdout.write(f"{dead.discard(self._chosen(options), options['by'])} discarded")

    def _one(self, key: int) -> DeadLetter:
        letter = DeadLetter.objects.filter(pk=key).first()
        if letter is None:
            raise CommandError(f"There is no dead letter {key}.")
        return letter

    def _chosen(self, options: dict[str, Any]) -> QuerySet[DeadLetter]:
        if options["all"]:
            return DeadLetter.objects.filter(state=DeadLetter.State.WAITING)
        letters = DeadLetter.objects.filter(pk__in=options["ids"])
        known = set(letters.values_list("pk", flat=True))
        if missing := [str(key) for key in options["ids"] if key not in known]:
            raise CommandError(f"Nothing was done: there is no dead letter {', '.join(missing)}.")
        if not known:
            raise CommandError("Nothing was done: name dead letters, or say --all.")
        return letters


def _declare_simulate(parser: ArgumentParser) -> None:
    known = ", ".join(activity.kind for activity in simulation.activities())
    logstash = settings.IDENTITY.parent / STREAM.publisher
    parser.add_argument("--bots", type=int, default=14, help="how many robots")
    parser.add_argument("--sites", type=int, default=3, help="at how many places")
    parser.add_argument(
        "--rate", type=float, default=0.0, metavar="PER_SECOND",
        help="events a second of all robots; without: as many as robots log",
    )  # fmt: skip
    parser.add_argument("--hurry", action="store_true", help="as fast as the broker takes them")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--events", type=int, default=sys.maxsize, help="end after this number")
    parser.add_argument(
        "--faults", default="", metavar="NAME=NUMBER,…",
        help="silent=2 (robots), fail, duplicate, malformed, stale (shares from 0 to 1)",
    )  # fmt: skip
    parser.add_argument("--only", action="append", metavar="KIND", help=f"one of {known}")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="for the same again")
    parser.add_argument(
        "--identity", type=Path, default=logstash,
        help=f"the folder with the certificate of {STREAM.publisher}",
    )  # fmt: skip


def _declare_recordings(does: Any) -> None:
    record = does.add_parser("record", help="print the raw events that are kept, a line each")
    record.add_argument("--since", required=True, metavar="TIME", help="such as 2026-12-01T08:00")
    record.add_argument("--until", metavar="TIME", help="now, if it is not given")
    dry_run = does.add_parser("replay", help="show what a recording would have alerted")
    dry_run.add_argument("file", help="of `record`, or a message a line; - reads standard input")
    dry_run.add_argument(
        "--as-of", metavar="TIME", help="judge until then; else until the recording's last event"
    )


def _time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CommandError(f"Invalid time {text!r}: use such as 2026-12-01T08:00.") from None
    return moment if moment.tzinfo else timezone.make_aware(moment)


def _declare_shipper(parser: ArgumentParser) -> None:
    does = parser.add_subparsers(dest="what", required=True)
    add = does.add_parser("add", help="it has a folder and may publish")
    add.add_argument("name")
    add.add_argument("kind")
    does.add_parser("revoke", help="it may no longer publish").add_argument("name")


def _declare_dead(parser: ArgumentParser) -> None:
    does = parser.add_subparsers(dest="what", required=True)
    listing = does.add_parser("list", help="the latest first")
    listing.add_argument("--state", default="waiting", choices=[*DeadLetter.State.values, "all"])
    listing.add_argument("--limit", type=int, default=50)
    show = does.add_parser("show", help="the message's text")
    show.add_argument("id", type=int)
    edit = does.add_parser("edit", help="give it another text to be replayed with")
    edit.add_argument("id", type=int)
    edit.add_argument("file", type=FileType(encoding="utf-8"), help="- reads the standard input")
    for name, text in (("replay", "take them in"), ("discard", "settle what nobody needs")):
        action = does.add_parser(name, help=text)
        action.add_argument("ids", nargs="*", type=int, metavar="ID")
        action.add_argument("--all", action="store_true", help="every one that waits")
        action.add_argument("--by", default=NOBODY, help="who; it stands on the letter's page")
