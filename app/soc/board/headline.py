"""The headline of the board: what needs attention, in words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils.timesince import timesince

from soc.board.data import MOST_FAILURES, SAMPLE_IS_OLD, UNSENT, Board, QueueState
from soc.core import storage
from soc.core.severity import Severity

LATE = 30
"""Seconds that the oldest due run may wait before the headline says so."""


@dataclass(frozen=True)
class Trouble:
    """One sentence of the headline, and the part of the board that tells more."""

    tone: str
    text: str
    anchor: str


@dataclass(frozen=True)
class Headline:
    """The state of the site in a sentence or some."""

    troubles: Sequence[Trouble]

    @property
    def tone(self) -> str:
        """The worst tone of the troubles."""
        tones = {trouble.tone for trouble in self.troubles}
        return "bad" if "bad" in tones else "warn" if tones else "ok"


def of(board: Board) -> Headline:
    """Return the headline of a board, the bad before the rest."""
    troubles = [
        *_storage(),
        *_alerts(board),
        *_sampling(board),
        *(trouble for state in board.queues for trouble in _queue(board, state)),
        *_beat(board),
        *_robots(board),
        *_failures(board),
        *_mail(board),
    ]
    return Headline(sorted(troubles, key=lambda trouble: trouble.tone != "bad"))


def _storage() -> Iterator[Trouble]:
    """Name the cause before what follows from it."""
    left = storage.free()
    if left.text:
        yield Trouble("bad" if left.severity == Severity.CRITICAL else "warn", left.text, "queues")


def _alerts(board: Board) -> Iterator[Trouble]:
    """Complain of the alerts that nobody has acknowledged; certificates speak by theirs, too."""
    for severity, tone in ((Severity.CRITICAL, "bad"), (Severity.WARNING, "warn")):
        if waiting := board.alerts.waiting(severity):
            verb = "waits" if waiting == 1 else "wait"
            text = f"{_count(waiting, f'{severity.label} alert')} {verb} for a person."
            yield Trouble(tone, text, "alerts")


def _sampling(board: Board) -> Iterator[Trouble]:
    question = "is worker-shared or the broker down?"
    if board.sampled_at is None:
        yield Trouble("bad", f"No queue sample in the last hour: {question}", "queues")
    elif board.now - board.sampled_at >= SAMPLE_IS_OLD:
        age = _age(board, board.sampled_at)
        yield Trouble("bad", f"No queue sample for {age}: {question}", "queues")


def _queue(board: Board, state: QueueState) -> Iterator[Trouble]:
    name, worker = state.queue.name, state.queue.service
    if not state.workers:
        yield Trouble("bad", f"{worker} has not been heard of: nothing empties {name}.", "queues")
    elif not state.alive:
        silence = _age(board, state.workers[0].seen_at)
        text = f"{worker} has been silent for {silence}: nothing empties {name}."
        yield Trouble("bad", text, "queues")
    elif state.consumers == 0:
        yield Trouble("bad", f"{worker} is alive but does not consume {name}.", "queues")
    if state.backs_up:
        yield Trouble("bad", f"{name} backs up: {state.depth} messages wait.", "queues")
    if state.dead:
        verb = "waits" if state.dead == 1 else "wait"
        text = f"{_count(state.dead, 'dead letter')} of {name} {verb} for a person."
        yield Trouble("warn", text, "queues")


def _beat(board: Board) -> Iterator[Trouble]:
    beat = board.beat
    if not beat.workers:
        yield Trouble("bad", "Beat has not been heard of: no schedule runs.", "beat")
    elif not beat.alive:
        silence = _age(board, beat.workers[0].seen_at)
        yield Trouble("bad", f"Beat has been silent for {silence}: no schedule runs.", "beat")
    elif beat.beats.instances and not beat.beats.leader:
        yield Trouble("bad", "No beat leads: no schedule runs.", "beat")
    elif beat.beats.leader and beat.beats.leader.lag > LATE:
        lag = round(beat.beats.leader.lag)
        yield Trouble("warn", f"Beat starts its schedules {lag} s late.", "beat")


def _robots(board: Board) -> Iterator[Trouble]:
    robots = board.robots
    if robots.stream_is_silent:
        yield Trouble("bad", "No event comes from any robot.", "robots")
    elif robots.silent:
        verb = "is" if robots.silent == 1 else "are"
        text = f"{robots.silent} of {_count(robots.total, 'robot')} {verb} silent."
        yield Trouble("warn", text, "robots")


def _failures(board: Board) -> Iterator[Trouble]:
    """Complain of what is recent; older failures stay listed without a claim on attention."""
    tasks = sum(board.now - failure.at < timedelta(hours=1) for failure in board.failures)
    if tasks:
        yield Trouble("warn", f"{_at_least(tasks, 'task')} failed in the last hour.", "failures")


def _mail(board: Board) -> Iterator[Trouble]:
    mail = board.mail
    if mail.relay.down_since:
        silence = _age(board, mail.relay.down_since)
        waiting = f"{_count(mail.counts.waiting, 'mail')} wait{'s' * (mail.counts.waiting == 1)}"
        yield Trouble("bad", f"The mail relay has been down for {silence}: {waiting}.", "mail")
    for number, what in ((mail.counts.failed, "refused"), (mail.counts.expired, "expired")):
        if number:
            yield Trouble("bad", f"{_count(number, 'mail')} {what} since yesterday.", "mail")
    stuck = sum(one.state not in UNSENT for one in mail.unsent)
    if stuck and not mail.relay.down_since:
        yield Trouble("warn", f"{_at_least(stuck, 'mail')} could not be sent yet.", "mail")


def _age(board: Board, moment: datetime) -> str:
    seconds = round((board.now - moment).total_seconds())
    return f"{seconds} s" if seconds < 120 else timesince(moment, board.now)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _at_least(listed: int, noun: str) -> str:
    return f"{listed} or more {noun}s" if listed == MOST_FAILURES else _count(listed, noun)
