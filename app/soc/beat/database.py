"""The SQL that beat lives on, for MariaDB/MySQL and for SQLite.

Every second counts here: the lease is renewed, runs are recorded and changes are found with a
fixed number of statements, however many schedules there are.
"""

import copy
import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, overload

from django.core.exceptions import ImproperlyConfigured
from django.db import connections, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django_celery_beat.models import PeriodicTask

from soc.beat.timing import as_datetime, moment

BUCKET = 64
"""Rows whose ids share a quotient by this are compared, and read again, together."""

_COLUMNS = (
    "t.id", "t.name", "t.task", "t.args", "t.kwargs", "t.queue", "t.exchange", "t.routing_key",
    "t.headers", "t.priority", "t.expires", "t.expire_seconds", "t.one_off", "t.start_time",
    "t.interval_id", "i.every", "i.period",
    "t.crontab_id", "c.minute", "c.hour", "c.day_of_week", "c.day_of_month", "c.month_of_year",
    "c.timezone",
    "t.solar_id", "s.event", "s.latitude", "s.longitude",
    "t.clocked_id", "k.clocked_time",
    "o.missed", "o.delivery",
)  # fmt: skip
_RUN_DATA = ("t.last_run_at", "t.total_run_count", "t.date_changed", "o.problem")
"""What beat itself writes, or what says nothing: a change of these is no change."""

FIELDS = tuple(name.split(".")[1] for name in (*_COLUMNS, *_RUN_DATA))
_FROM = """
FROM django_celery_beat_periodictask t
LEFT JOIN django_celery_beat_intervalschedule i ON i.id = t.interval_id
LEFT JOIN django_celery_beat_crontabschedule c ON c.id = t.crontab_id
LEFT JOIN django_celery_beat_solarschedule s ON s.id = t.solar_id
LEFT JOIN django_celery_beat_clockedschedule k ON k.id = t.clocked_id
LEFT JOIN soc_beat_taskoptions o ON o.task_id = t.id
WHERE t.enabled
"""


@dataclass(frozen=True, slots=True)
class Record:
    """New run data of one row; ``enabled`` None leaves that as it is."""

    key: int
    last: int | None
    runs: int
    enabled: bool | None = None


@dataclass(frozen=True)
class Holder:
    """Who holds the lease."""

    owner: str
    epoch: int
    recorded_until: int


class Database(ABC):
    """One persistent connection with short timeouts, and the statements of one vendor."""

    now: str
    digest: str

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection = connection

    def fetch(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run a query and return its rows."""
        with self.connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            return list(cursor.fetchall())

    def change(self, sql: str, *parameters: Any) -> int:
        """Run a statement and return how many rows it found."""
        with self.connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            return int(cursor.rowcount)

    def close(self) -> None:
        """Drop the connection; the next statement makes a new one."""
        self.connection.close()

    # --- The lease ---------------------------------------------------------------------------
    def take_lease(self, owner: str, seconds: float) -> None:
        """Take the lease if its time is up; ``holder`` says whether that worked."""
        self.change(
            f"""
            UPDATE soc_beat_lease SET owner = %s, epoch = epoch + 1, expires_at = {self.later()}
            WHERE id = 1 AND expires_at <= {self.now}
            """,  # noqa: S608
            owner,
            *self.later_parameters(seconds),
        )

    def holder(self) -> Holder | None:
        """Return who holds the lease, None if it was never made."""
        rows = self.fetch("SELECT owner, epoch, recorded_until FROM soc_beat_lease WHERE id = 1")
        if not rows:
            return None
        owner, epoch, recorded_until = rows[0]
        return Holder(owner, epoch, self.moment(recorded_until) or 0)

    def make_lease(self) -> None:
        """Create the row of the lease, which nobody holds; one that exists stays."""
        self.change(
            f"""
            INSERT {self.ignore} INTO soc_beat_lease (id, owner, epoch, expires_at)
            VALUES (1, '', 0, {self.now})
            """,  # noqa: S608
        )

    @abstractmethod
    def record(
        self,
        owner: str,
        epoch: int,
        seconds: float,
        recorded_until: int,
        records: Sequence[Record],
    ) -> bool:
        """Renew the lease and write run data, both or nothing; return whether it was ours.

        It is ours as long as nobody has taken it, even when its time is up.
        """

    # --- The rows ----------------------------------------------------------------------------
    def poll(self, owner: str, alive_since: int) -> tuple[Any, bool]:
        """Return a mark that changes with every edit, and whether another beat is alive."""
        rows = self.fetch(
            """
            SELECT
              (SELECT last_update FROM django_celery_beat_periodictasks WHERE ident = 1),
              EXISTS(SELECT 1 FROM soc_beat_instance WHERE name <> %s AND ticked_at > %s)
            """,
            owner,
            self.text(alive_since),
        )
        return rows[0][0], bool(rows[0][1])

    def digests(self) -> dict[int, tuple[int, int]]:
        """Return the number of enabled rows and the sum of their digests by bucket."""
        rows = self.fetch(
            f"""
            SELECT {self.bucket} AS bucket, COUNT(*), SUM({self.digest}) {_FROM} GROUP BY bucket
            """
        )
        return {int(bucket): (int(number), int(total)) for bucket, number, total in rows}

    def rows(self, buckets: Iterable[int] | None = None) -> list[tuple[Any, ...]]:
        """Return the enabled rows of some buckets, or all: the digest, then FIELDS."""
        sql = f"SELECT {self.digest}, {', '.join((*_COLUMNS, *_RUN_DATA))} {_FROM}"
        if buckets is None:
            return self.fetch(sql)
        ranges = [(bucket * BUCKET, bucket * BUCKET + BUCKET - 1) for bucket in buckets]
        chosen = " OR ".join("t.id BETWEEN %s AND %s" for _ in ranges)
        return self.fetch(f"{sql} AND ({chosen})", *(end for pair in ranges for end in pair))

    # --- What differs ------------------------------------------------------------------------
    ignore: str
    bucket: str

    @abstractmethod
    def later(self) -> str:
        """Return the SQL of now plus the parameters of ``later_parameters``."""

    @abstractmethod
    def later_parameters(self, seconds: float) -> tuple[Any, ...]:
        """Return the parameters of ``later``."""

    @overload
    def moment(self, at: None) -> None: ...

    @overload
    def moment(self, at: datetime) -> int: ...

    def moment(self, at: datetime | None) -> int | None:
        """Return a time as the driver gave it as a moment."""
        return None if at is None else moment(at.replace(tzinfo=self.connection.timezone))

    def text(self, at: int) -> str:
        """Return a moment as the database writes times."""
        local = as_datetime(at).astimezone(self.connection.timezone)
        return f"{local:%Y-%m-%d %H:%M:%S.%f}"

    def json(self, records: Iterable[Record]) -> str:
        """Return records as a JSON list of [id, last, runs, enabled]."""
        return json.dumps(
            [
                [
                    record.key,
                    None if record.last is None else self.text(record.last),
                    record.runs,
                    None if record.enabled is None else int(record.enabled),
                ]
                for record in records
            ]
        )


class MariaDB(Database):
    """MariaDB 10.6 and later, MySQL 8: one statement renews and records."""

    now = "UTC_TIMESTAMP(6)"
    ignore = "IGNORE"
    bucket = f"t.id DIV {BUCKET}"
    digest = (
        "CRC32(CONCAT_WS('\\x1f', "
        + ", ".join(f"IFNULL({column}, '\\x1e')" for column in _COLUMNS)
        + "))"
    )

    def later(self) -> str:
        """Return the SQL of now plus microseconds."""
        return f"{self.now} + INTERVAL %s MICROSECOND"

    def later_parameters(self, seconds: float) -> tuple[Any, ...]:
        """Return the microseconds."""
        return (round(seconds * 1e6),)

    def record(
        self,
        owner: str,
        epoch: int,
        seconds: float,
        recorded_until: int,
        records: Sequence[Record],
    ) -> bool:
        """Renew and record in one statement, which is its own transaction."""
        found = self.change(
            f"""
            UPDATE soc_beat_lease l
            LEFT JOIN JSON_TABLE(%s, '$[*]' COLUMNS (
              id INT PATH '$[0]', last DATETIME(6) PATH '$[1]', runs INT PATH '$[2]',
              enabled INT PATH '$[3]'
            )) r ON TRUE
            LEFT JOIN django_celery_beat_periodictask t ON t.id = r.id
            SET l.expires_at = {self.later()}, l.recorded_until = %s,
              t.last_run_at = IFNULL(r.last, t.last_run_at),
              t.total_run_count = IF(
                r.enabled IS NULL, GREATEST(CAST(t.total_run_count AS SIGNED) + r.runs, 0), 0
              ),
              t.enabled = IFNULL(r.enabled, t.enabled)
            WHERE l.id = 1 AND l.owner = %s AND l.epoch = %s
            """,  # noqa: S608
            self.json(records),
            *self.later_parameters(seconds),
            self.text(recorded_until),
            owner,
            epoch,
        )
        return found > 0


class SQLite(Database):
    """SQLite 3.33 and later: two statements in one transaction."""

    now = "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now')"
    ignore = "OR IGNORE"
    bucket = f"t.id / {BUCKET}"
    digest = f"beat_digest({', '.join(_COLUMNS)})"

    def later(self) -> str:
        """Return the SQL of now plus a modifier."""
        return "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', %s)"

    def later_parameters(self, seconds: float) -> tuple[Any, ...]:
        """Return the modifier."""
        return (f"+{seconds:.3f} seconds",)

    def record(
        self,
        owner: str,
        epoch: int,
        seconds: float,
        recorded_until: int,
        records: Sequence[Record],
    ) -> bool:
        """Renew and record in one transaction."""
        with transaction.atomic(using=self.connection.alias):
            ours = self.change(
                f"""
                UPDATE soc_beat_lease SET expires_at = {self.later()}, recorded_until = %s
                WHERE id = 1 AND owner = %s AND epoch = %s
                """,  # noqa: S608
                *self.later_parameters(seconds),
                self.text(recorded_until),
                owner,
                epoch,
            )
            if ours and records:
                self.change(
                    """
                    UPDATE django_celery_beat_periodictask AS t SET
                      last_run_at = IFNULL(r.last, last_run_at),
                      total_run_count =
                        iif(r.enabled IS NULL, max(total_run_count + r.runs, 0), 0),
                      enabled = IFNULL(r.enabled, t.enabled)
                    FROM (
                      SELECT json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS last,
                        json_extract(value, '$[2]') AS runs, json_extract(value, '$[3]') AS enabled
                      FROM json_each(%s)
                    ) AS r
                    WHERE t.id = r.id
                    """,
                    self.json(records),
                )
        return ours > 0

    def digests(self) -> dict[int, tuple[int, int]]:
        """Give a new connection the function first."""
        self._prepare()
        return super().digests()

    def rows(self, buckets: Iterable[int] | None = None) -> list[tuple[Any, ...]]:
        """Give a new connection the function first."""
        self._prepare()
        return super().rows(buckets)

    def _prepare(self) -> None:
        self.connection.ensure_connection()
        self.connection.connection.create_function("beat_digest", -1, _digest, deterministic=True)


def _digest(*values: Any) -> int:
    return zlib.crc32(repr(values).encode())


_VENDORS = {"mysql": MariaDB, "sqlite": SQLite}


def vendor() -> str:
    """Return Django's name of the kind of database that holds the schedules."""
    return connections[router.db_for_write(PeriodicTask)].vendor


def connect(timeout: float) -> Database:
    """Return the database of the schedules, with timeouts in seconds for this thread alone.

    Raises:
        ImproperlyConfigured: the database is of another vendor.
    """
    connection = connections[router.db_for_write(PeriodicTask)]
    if connection.vendor not in _VENDORS:
        raise ImproperlyConfigured(
            f"soc.beat knows MariaDB, MySQL and SQLite, not {connection.display_name}"
        )
    if connection.vendor == "mysql":
        # Other threads of the process keep their own.
        connection.settings_dict = copy.deepcopy(connection.settings_dict)
        connection.settings_dict["OPTIONS"] |= {
            name: max(1, int(timeout))
            for name in ("connect_timeout", "read_timeout", "write_timeout")
        }
    return _VENDORS[connection.vendor](connection)
