"""Checks of the database: what it answered to docker/containers/doctor.sql."""

import re
from collections.abc import Iterator
from pathlib import Path

from soc.doctor.facts import Facts
from soc.doctor.findings import Finding, critical, warning
from soc.provision.identity import database_user
from soc.provision.site import APP_SERVICES

APPLICATIONS = Path(__file__).parents[1]
FULL = 0.8
"""The share of the connections that may be in use."""

ENOUGH_EVENTS = 1000
"""Events from which a rate is named."""

DAYS_LEFT = (2, 14)
"""Days until the volume is full at the present rate: critical, and a warning."""

_LABEL = re.compile(r'^    label = "(\w+)"$', re.MULTILINE)


def check(facts: Facts) -> Iterator[Finding]:
    """Yield what is wrong with the database."""
    if not facts.rows("version"):
        yield critical(
            "database",
            f"MariaDB does not answer: {facts.error('database') or 'no answer in time'}",
            "`make logs S=mariadb`; if it waits for space, free some on its volume",
            follows=not facts.runs("mariadb"),
        )
        return
    yield from _tables(facts)
    yield from _users(facts)
    yield from _load(facts)
    yield from _growth(facts)


def _tables(facts: Facts) -> Iterator[Finding]:
    for (error,) in facts.rows("unreadable"):
        yield critical(
            "database",
            f"a table cannot be read: {error}",
            "restore the last backup beside it (`make restore`), or ask for help before anything "
            "is deleted; backups fail until then",
        )
    if facts.rows("upgraded"):
        yield critical(
            "database",
            "a migration stopped in the middle",
            "`make up` goes on where it stopped",
        )
    missing = _migrations() - {(row[0], row[1]) for row in facts.rows("migration")}
    if missing:
        names = ", ".join(f"{label}.{name}" for label, name in sorted(missing)[:2])
        yield critical(
            "database",
            f"{len(missing)} migrations of APP_IMAGE have not run, such as {names}",
            "`make up` migrates",
        )
    if facts.number("read_only"):
        yield critical(
            "database",
            "MariaDB takes no rows: read_only is on",
            "`docker compose restart mariadb` goes back to the configured value",
        )


def _migrations() -> set[tuple[str, str]]:
    """Return the migrations of this image's own applications, by label and name."""
    found = set()
    for path in APPLICATIONS.glob("*/migrations/[0-9]*.py"):
        package = path.parents[1]
        label = _LABEL.search((package / "apps.py").read_text(encoding="utf-8"))
        found.add((label[1] if label else package.name, path.stem))
    return found


def _users(facts: Facts) -> Iterator[Finding]:
    known = {row[0]: row[1] for row in facts.rows("user")}
    granted = {row[0] for row in facts.rows("grant")}
    for service in APP_SERVICES:
        user = database_user(service)
        if user not in known:
            text = f"MariaDB does not know {user}, as whom {service} logs in"
        elif f'"/CN={service}"' not in known[user]:
            text = f"MariaDB does not ask {user} for the certificate of {service}"
        elif user not in granted and service != "migrate":
            text = f"{user} has no right on any table"
        else:
            continue
        yield critical("database", text, "`make up` gives each service its user and its rights")


def _load(facts: Facts) -> Iterator[Finding]:
    used, most = facts.number("connections"), facts.number("max_connections")
    if most and used / most > FULL:
        yield critical(
            "database",
            f"{used:.0f} of {most:.0f} connections are in use",
            "look who has them (SHOW PROCESSLIST); fewer worker containers need fewer",
        )
    for thread, seconds, locked, query in (row for row in facts.rows("transaction")):
        yield warning(
            "database",
            f"a transaction has been open for {seconds} s with {locked} rows locked: {query}",
            f"if it is stuck, end it in the database: KILL {thread}",
        )
    for thread, seconds, query in facts.rows("query"):
        yield warning(
            "database",
            f"a statement has run for {seconds} s: {query}",
            f"if it is stuck, end it in the database: KILL {thread}",
        )


def _growth(facts: Facts) -> Iterator[Finding]:
    free = next(
        (
            int(free) * 1024
            for _, free, *place in facts.words("host", "space")
            if "mariadb" in place
        ),
        0,
    )
    arrived, since = next(iter(facts.rows("arrived")), ["0", "NULL"])
    weight = next((row[0] for row in facts.rows("weight")), "NULL")
    if not free or "NULL" in (since, weight) or int(arrived) < ENOUGH_EVENTS:
        return
    a_day = int(arrived) / max(facts.began - float(since), 1.0) * 86_400 * float(weight)
    days = free / max(a_day, 1.0)
    if days < DAYS_LEFT[1]:
        make = critical if days < DAYS_LEFT[0] else warning
        yield make(
            "database",
            f"events arrive at {a_day / 1e9:.1f} GB a day: MariaDB's volume is full in {days:.0f} "
            f"days, or when the oldest events are deleted",
            "give the volume more space, or keep events for fewer days (Event stream > Settings)",
        )
