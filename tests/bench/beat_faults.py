"""Kill, pause and cut off the active one of two beats; count what was doubled and what was lost.

make bench BENCH=beat_faults             100 rounds, about three quarters of an hour
make bench BENCH=beat_faults ROUNDS=9    three of each kind
"""

from __future__ import annotations

import os
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice

from beats import Beats, Message, Plan
from bench import Bench, say
from harness import run, wait_for

ROUNDS = int(os.environ.get("ROUNDS", "100"))
SCHEDULES = 1_000
PERIOD = 20
"""Seconds between two runs of a schedule: 50 runs a second, so that a fault hits some."""

STEADY = 2.0
"""Seconds of undisturbed work after each takeover, and after each return."""

PATIENCE = 60.0
"""Seconds to wait for a takeover; a longer one ends the benchmark."""

MARGIN = 1.0
"""Seconds around a failover for which a run still counts as due within it: a batch that was
collected when the fault came, and the first one of the new leader."""

GRANTED = 2.5
"""Seconds of runs that a beat has been granted ahead, at most: nobody else runs those."""

TOLD = 20
"""How many of the runs that went wrong are told one by one."""

SEED = 4
BENCH = Bench("beat_faults")
STACK = BENCH.stack


def kill(container: str) -> None:
    run("docker", "kill", "--signal=KILL", container)


def start(container: str) -> None:
    run("docker", "start", container)


def pause(container: str) -> None:
    run("docker", "pause", container)


def unpause(container: str) -> None:
    run("docker", "unpause", container)


def disconnect(container: str) -> None:
    run("docker", "network", "disconnect", f"{STACK.project}_data", container)


def connect(container: str) -> None:
    run("docker", "network", "connect", f"{STACK.project}_data", container)


FAULTS: dict[str, tuple[Callable[[str], None], Callable[[str], None]]] = {
    "kill": (kill, start),
    "pause": (pause, unpause),
    "cut": (disconnect, connect),
}


@dataclass(frozen=True)
class Round:
    """One fault: of which kind, when it came, and when the other beat's first message came."""

    kind: str
    start: float
    end: float

    @property
    def failover(self) -> float:
        return self.end - self.start

    def covers(self, due: float) -> bool:
        """Whether a run of that due time may be missing for this fault's sake."""
        return self.start - MARGIN <= due <= max(self.end, self.start + GRANTED) + MARGIN


def play(beats: Beats, kind: str) -> Round:
    """Hurt the active beat, wait for the other one, heal, and wait until there are two again."""
    hurt, heal = FAULTS[kind]
    # Not always at the same point of a tick.
    time.sleep(random.uniform(0, 1))
    host = beats.active()
    container = beats.containers()[host]
    moment = time.time()
    hurt(container)
    try:
        first = beats.taken_over(moment, former=host, seconds=PATIENCE)
        time.sleep(STEADY)
    finally:
        heal(container)
    wait_for("two beats", lambda: beats.ticks(container), PATIENCE)
    time.sleep(STEADY)
    return Round(kind, moment, first.at)


def judge(plan: Plan, messages: list[Message], rounds: list[Round], start: float) -> None:
    """Print the counts: every run that was due is dispatched once, or else is told here."""
    # The youngest runs may still be on their way.
    end = time.time() - PERIOD
    sent = defaultdict(list)
    for message, run_of_it in plan.runs(messages):
        sent[run_of_it].append(message)
    unasked = sent.pop(None, [])
    total = within = beyond = 0
    for number in range(plan.count):
        for turn in plan.turns(number, start, end):
            total += 1
            due = plan.due(number, turn)
            if (number, turn) in sent:
                continue
            if any(fault.covers(due) for fault in rounds):
                within += 1
            else:
                beyond += 1
                if beyond <= TOLD:
                    say(f"lost: schedule {number}, {nearest(rounds, due)}")
    twice = {of: found for of, found in sent.items() if len(found) > 1}
    for (number, turn), found in sorted(twice.items())[:TOLD]:
        due = plan.due(number, turn)
        told = ", ".join(f"{m.at - due:+.3f} s by {m.host}" for m in found)
        say(f"doubled: schedule {number}, {nearest(rounds, due)}: {told}")
    late = [message.at - plan.due(*of) for of, found in sent.items() for message in found]
    print(f"figure beat_faults_doubled {len(twice)} runs")
    print(f"figure beat_faults_lost_beyond_failover {beyond} runs")
    print(f"figure beat_faults_lost_within_failover {within} runs")
    print(f"figure beat_faults_not_asked_for {len(unasked)} runs")
    print(f"figure beat_faults_due {total} runs")
    print(f"figure beat_faults_latest {max(late, default=0):.1f} s")
    for kind in FAULTS:
        times = sorted(fault.failover for fault in rounds if fault.kind == kind)
        if not times:
            print(f"not measured: no round of the kind {kind} ended")
            continue
        print(f"figure beat_faults_rounds_{kind} {len(times)} rounds")
        print(f"figure beat_faults_failover_median_{kind} {times[len(times) // 2]:.2f} s")
        print(f"figure beat_faults_failover_max_{kind} {times[-1]:.2f} s")


def nearest(rounds: list[Round], due: float) -> str:
    """Say where a run lies relative to the fault before it."""
    before = [fault for fault in rounds if fault.start - MARGIN <= due]
    if not before:
        return "before the first fault"
    fault = before[-1]
    return f"{due - fault.start:+.2f} s from a {fault.kind} with {fault.failover:.2f} s of failover"


def rounds_of(beats: Beats) -> Iterator[Round]:
    for index, kind in enumerate(islice(cycle(FAULTS), ROUNDS), start=1):
        played = play(beats, kind)
        say(f"round {index} of {ROUNDS}: {kind}, taken over after {played.failover:.2f} s")
        yield played


def main() -> None:
    random.seed(SEED)
    rounds: list[Round] = []
    with BENCH.site(whole=True):
        beats = Beats(STACK, BENCH.folder)
        with beats.running():
            plan = beats.schedule(SCHEDULES, PERIOD)
            say(f"{SCHEDULES} schedules, each every {PERIOD} s")
            started = plan.first_due + PERIOD
            wait_for("the first runs", lambda: time.time() > started + STEADY)
            try:
                for played in rounds_of(beats):
                    rounds.append(played)
            finally:
                say("counting")
                time.sleep(STEADY)
                judge(plan, list(beats.messages()), rounds, started)


if __name__ == "__main__":
    main()
