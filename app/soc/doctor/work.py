"""Checks of what the site does: beat, workers, mail, dead letters, time zones."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version

from soc.doctor.facts import Facts
from soc.doctor.findings import Finding, critical, warning
from soc.runtime.queues import QUEUES

SILENT = 45
VERY_LATE = 60
"""Seconds, as on the board."""


def check(facts: Facts) -> Iterator[Finding]:
    """Yield what is wrong with the site's work."""
    yield from _relay(facts)
    if facts.rows("version"):
        yield from _beat(facts)
        yield from _workers(facts)
        yield from _mail(facts)
        yield from _failures(facts)
    yield from _time_zones()


def _relay(facts: Facts) -> Iterator[Finding]:
    if not facts.runs("worker-email"):
        return
    try:
        problem, todo = json.loads(facts.text("relay"))
    except ValueError:
        why = facts.error("relay") or "no answer in time"
        problem, todo = f"the relay could not be checked: {why}", "`make logs S=worker-email`"
    if problem:
        yield critical("relay", problem, todo)


def _beat(facts: Facts) -> Iterator[Finding]:
    now = facts.number("now")
    alive = [row for row in facts.rows("beat") if now - float(row[1]) < SILENT]
    if not alive:
        yield critical(
            "beat",
            "no beat is active: no schedule runs",
            "`make logs S=beat`; `docker compose restart beat`",
            follows=True,
        )
    for _, _, lag, blocked in alive:
        if not blocked and float(lag) >= VERY_LATE:
            yield critical(
                "beat",
                f"beat starts its schedules {float(lag):.0f} s late",
                "`make logs S=beat`: a slow database or broker, or too small a SOC_BEAT_CPUS",
                follows=True,
            )
    for name, problem in facts.rows("problem"):
        yield warning("beat", f"the schedule {name}: {problem}", "Operations > Schedules")
    if names := [row[0] for row in facts.rows("schedule")]:
        yield warning(
            "beat",
            f"{len(names)} schedules are disabled: {', '.join(names[:3])}",
            "enable them under Operations > Schedules, unless that is meant",
        )


def _workers(facts: Facts) -> Iterator[Finding]:
    now = facts.number("now")
    for queue in QUEUES:
        seen = [float(at) for service, _, at in facts.rows("heartbeat") if service == queue.service]
        if not seen or now - max(seen) > SILENT:
            yield critical(
                "workers",
                f"{queue.service} gives no sign of life: nothing empties {queue.name}",
                f"`make logs S={queue.service}`; `docker compose restart {queue.service}`",
                follows=True,
            )


def _mail(facts: Facts) -> Iterator[Finding]:
    for down_since, error in facts.rows("relay"):
        if down_since:
            yield critical(
                "relay",
                f"all mail waits: {error}",
                "mend it there; the site probes it by itself and goes on",
                follows=True,
            )
    if facts.rows("subscriptions") and not facts.number("subscriptions"):
        yield critical(
            "mail",
            "no subscription is enabled: nobody is notified of anything",
            "Notify > Subscriptions",
        )
    counts = {state: int(count) for state, count in facts.rows("mail")}
    if lost := counts.get("failed", 0) + counts.get("expired", 0):
        yield warning(
            "mail",
            f"{lost} mails of the last 24 h were refused or expired",
            "Notify > Mail has the relay's words; correct the subscription, then try again now",
        )


def _failures(facts: Facts) -> Iterator[Finding]:
    for queue, count in facts.rows("dead"):
        yield warning(
            "workers",
            f"{count} dead letters of {queue} wait for a person",
            "Operations > Dead letters: mend the cause, then replay or discard them",
        )
    for task, count in facts.rows("failure"):
        yield warning(
            "workers",
            f"{task} failed {count} times in the last hour",
            "Operations > Task failures has the traceback",
            follows=True,
        )


def _time_zones() -> Iterator[Finding]:
    year = int(version("tzdata").partition(".")[0])
    if year < datetime.now(UTC).year - 1:
        yield warning(
            "time zones",
            f"the time-zone rules are of {year}",
            "`make lock` and a new image bring the present ones",
        )
