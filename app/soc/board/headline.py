"""The headline of the board: what needs attention, in words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils.timesince import timesince

from soc.board.data import MOST_FAILURES, SAMPLE_IS_OLD, Board, QueueState
from soc.notify.models import OutboundMail
from soc.ssl_certs.models import Endpoint

Status = Endpoint.Status


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
        *_sampling(board),
        *(trouble for state in board.queues for trouble in _queue(board, state)),
        *_beat(board),
        *_certificates(board),
        *_failures(board),
    ]
    return Headline(sorted(troubles, key=lambda trouble: trouble.tone != "bad"))


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
    if not board.beat.workers:
        yield Trouble("bad", "Beat has not been heard of: no schedule runs.", "beat")
    elif not board.beat.alive:
        silence = _age(board, board.beat.workers[0].seen_at)
        yield Trouble("bad", f"Beat has been silent for {silence}: no schedule runs.", "beat")


_SENTENCES = {
    Status.INVALID: ("bad", "certificate is", "certificates are", "not valid"),
    Status.UNREACHABLE: ("bad", "endpoint is", "endpoints are", "not reached"),
    Status.CRITICAL: ("bad", "certificate expires", "certificates expire", "very soon"),
    Status.WARNING: ("warn", "certificate expires", "certificates expire", "soon"),
}


def _certificates(board: Board) -> Iterator[Trouble]:
    for count in board.certificates.counts:
        if count.count and count.status in _SENTENCES:
            tone, one, many, what = _SENTENCES[Status(count.status)]
            text = f"{count.count} {one if count.count == 1 else many} {what}."
            yield Trouble(tone, text, "certificates")


def _failures(board: Board) -> Iterator[Trouble]:
    """Complain of what is recent; older failures stay listed without a claim on attention."""
    now, failures = board.now, board.failures
    tasks = sum(now - failure.at < timedelta(hours=1) for failure in failures.tasks)
    if tasks:
        yield Trouble("warn", f"{_at_least(tasks, 'task')} failed in the last hour.", "failures")
    refused = sum(
        mail.state == OutboundMail.State.FAILED and now - mail.created_at < timedelta(days=1)
        for mail in failures.unsent
    )
    if refused:
        yield Trouble("bad", f"{_at_least(refused, 'mail')} refused since yesterday.", "mail")
    waiting = sum(mail.state != OutboundMail.State.FAILED for mail in failures.unsent)
    if waiting:
        yield Trouble("warn", f"{_at_least(waiting, 'mail')} could not be sent yet.", "mail")


def _age(board: Board, moment: datetime) -> str:
    seconds = round((board.now - moment).total_seconds())
    return f"{seconds} s" if seconds < 120 else timesince(moment, board.now)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _at_least(listed: int, noun: str) -> str:
    return f"{listed} or more {noun}s" if listed == MOST_FAILURES else _count(listed, noun)
