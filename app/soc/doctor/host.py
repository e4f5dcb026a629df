"""Checks of the host and of the engine: space, inodes, memory, clock, versions; and of backups."""

import ctypes
import re
from collections.abc import Iterator

from soc.doctor.facts import Facts
from soc.doctor.findings import Finding, critical, warning

CRITICAL, WARNING = 0.05, 0.15
"""Shares of space and inodes that are free, as in `soc.core.storage`."""

CRITICAL_MEMORY, WARNING_MEMORY = 0.03, 0.08
OVERLOADED = 8
"""Processes that run or wait for each processor, as a mean of one minute."""

LEAST_VERSIONS = {"Docker Engine": (20, 10), "Docker Compose": (2, 17)}
BACKUP_IS_OLD = 8 * 86_400
CLOCK_IS_BACK = 60
"""Seconds."""

_TIMEX_STATUS = slice(40, 44)
_STA_UNSYNC = 0x40


def check(facts: Facts) -> Iterator[Finding]:
    """Yield what is wrong with the host."""
    yield from _room(facts)
    yield from _memory(facts)
    yield from _load(facts)
    yield from _clock(facts)
    yield from _versions(facts)
    yield from _backups(facts)


def _room(facts: Facts) -> Iterator[Finding]:
    seen = set()
    for kind in ("space", "inodes"):
        for total, free, *place in facts.words("host", kind):
            # A file system without a fixed number of inodes answers 0 of 0 or a dash.
            if not total.isdigit() or total == "0" or (kind, total, free) in seen:
                continue
            seen.add((kind, total, free))
            share = int(free) / int(total)
            if share < WARNING:
                make = critical if share < CRITICAL else warning
                yield make(
                    "host",
                    f"{' '.join(place)} has {share:.0%} of its {kind} free",
                    "delete or move something there (`docker system df` shows what the engine "
                    "holds) before the database stops",
                )


def _memory(facts: Facts) -> Iterator[Finding]:
    kilobytes = {name: int(count) for name, count in facts.words("host", "memory")}
    share = kilobytes["available"] / kilobytes["total"] if kilobytes.get("total") else 1.0
    if share < WARNING_MEMORY:
        make = critical if share < CRITICAL_MEMORY else warning
        yield make(
            "host",
            f"{share:.0%} of the host's memory is available",
            "stop what else runs here, or give the host more: the kernel kills processes next",
        )


def _load(facts: Facts) -> Iterator[Finding]:
    for load, processors in facts.words("host", "load"):
        if float(load) > OVERLOADED * int(processors):
            yield critical(
                "host",
                f"the host is overloaded: {float(load):.0f} processes run or wait on {processors} "
                f"processors",
                "look who they are (`top`); what does not answer below may only be slow",
            )


def _clock(facts: Facts) -> Iterator[Finding]:
    ahead = max((float(row[2]) - facts.began for row in facts.rows("heartbeat")), default=0.0)
    if ahead > CLOCK_IS_BACK:
        yield critical(
            "host",
            f"the clock went back: the database has signs of life from {ahead:.0f} s ahead",
            "set the host's clock right (chrony, systemd-timesyncd); until the time has passed, "
            "what is silent looks alive",
        )
    # Without a mode it only reads, which needs no right (adjtimex(2)).
    state = ctypes.create_string_buffer(512)
    ctypes.CDLL(None).adjtimex(state)
    if int.from_bytes(state.raw[_TIMEX_STATUS], "little") & _STA_UNSYNC:
        yield warning(
            "host",
            "the kernel's clock is not synchronized",
            "run chrony or systemd-timesyncd, unless a virtual machine takes its host's time",
            follows=True,
        )


def _versions(facts: Facts) -> Iterator[Finding]:
    found = facts.text("engine").splitlines()
    for (name, least), text in zip(LEAST_VERSIONS.items(), found, strict=False):
        if tuple(int(part) for part in re.findall(r"\d+", text)[:2]) < least:
            wanted = ".".join(map(str, least))
            yield warning("host", f"{name} is {text}", f"upgrade it to {wanted} or newer")


def _backups(facts: Facts) -> Iterator[Finding]:
    todo = "`make backup`, each night by cron, and copy it to another machine"
    archives = sorted(line.split(maxsplit=2) for line in facts.text("backups").splitlines())
    if not archives:
        yield warning("backups", "backups/ holds no backup of this site", todo, follows=True)
        return
    at, size, path = archives[-1]
    age = facts.began - int(at)
    if age > BACKUP_IS_OLD:
        yield warning("backups", f"the newest backup, {path}, is {age / 86_400:.0f} days old", todo)
    if len(archives) > 1 and int(size) * 2 < int(archives[-2][1]):
        yield warning(
            "backups",
            f"{path} has less than half the size of the one before",
            "look whether the database lost rows, before the older backup is deleted",
        )
