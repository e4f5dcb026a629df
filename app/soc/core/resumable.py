"""Migrations that may be killed at any moment and are then run on, on MariaDB.

MariaDB commits each statement that changes the schema by itself, so a migration that is killed
stays half done, and Django would begin it again ("table exists"). Here every operation is recorded
when it is done, and every statement of the present one before and after it, in a table that exists
only until all migrations are done. A single statement is done wholly or not at all (MariaDB
documentation: Atomic DDL, since 10.6).
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management import CommandError
from django.db import DatabaseError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations import Migration
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.operations.base import Operation

TABLE = "soc_migration_journal"
LONGEST_WAIT = 600
"""Seconds to wait for another migrate, or for the statement that a killed one has left running."""

_LOOK = 5
_OPERATION = ""
_CLIENT_ERRORS = 2000
"""From here on errors are the client's own: the server may have done the statement."""

DONE_BEFORE = frozenset({1005, 1050, 1051, 1054, 1060, 1061, 1091, 1146, 1176, 1826})
"""What MariaDB answers to a statement that it has done before: the table, column, key or
constraint to be made is there, or the one to be renamed or dropped is not."""

_LEFT_BEHIND = frozenset({1050, 1060, 1061, 1826})
"""Those of them that only say that something is there already."""


class Journal:
    """What is done of the migration that is being applied."""

    def __init__(self, connection: BaseDatabaseWrapper, *, take_over: bool) -> None:
        self.connection = connection
        self.take_over = take_over
        """Whether what is there already counts as done, though nothing was recorded."""
        self._migration = ("", "")
        self._done: dict[tuple[int, str], bool] = {}
        self._step = 0

    def begin(self, migration: Migration) -> None:
        """Read what is done of a migration."""
        self._migration = (migration.app_label, migration.name)
        rows = self._run("SELECT step, statement, done FROM {} WHERE app = %s AND name = %s")
        self._done = {(step, statement): bool(done) for step, statement, done in rows}

    def end(self) -> None:
        """Forget a migration that Django has recorded."""
        self._run("DELETE FROM {} WHERE app = %s AND name = %s")
        self.take_over = False

    def step(self, number: int) -> bool:
        """Begin an operation; return whether it is done already."""
        self._step = number
        return self._done.get((number, _OPERATION), False)

    def step_is_done(self) -> None:
        """Record that the operation is done, in its transaction if it has one."""
        self._write(_OPERATION, done=True)

    def execute(self, statement: str, run: Callable[[], None]) -> None:
        """Run a statement of the operation unless it is done.

        Raises:
            DatabaseError: the database refuses it.
        """
        digest = hashlib.blake2b(statement.encode(), digest_size=16).hexdigest()
        done = self._done.get((self._step, digest))
        if done:
            return
        self._write(digest, done=False)
        try:
            run()
        except DatabaseError as error:
            code = error.args[0] if error.args else None
            if code not in DONE_BEFORE or (done is None and not self.take_over):
                if code in _LEFT_BEHIND:
                    error.add_note(_advice(*self._migration))
                if isinstance(code, int) and code < _CLIENT_ERRORS:
                    self._run(
                        "DELETE FROM {} WHERE app = %s AND name = %s AND step = %s "
                        "AND statement = %s",
                        self._step,
                        digest,
                    )
                raise
        self._write(digest, done=True)

    def _write(self, statement: str, *, done: bool) -> None:
        self._run("REPLACE INTO {} VALUES (%s, %s, %s, %s, %s)", self._step, statement, done)

    def _run(self, sql: str, *values: Any) -> Any:
        with self.connection.cursor() as cursor:
            cursor.execute(sql.format(TABLE), (*self._migration, *values))
            return cursor.fetchall()


def _advice(application: str, name: str) -> str:
    return (
        f"{application}.{name} was perhaps interrupted under an older version, which recorded "
        f"nothing. If so, this goes on with it: docker compose run --rm migrate python3 manage.py "
        f"setup --take-over. If not, restore the last backup."
    )


class _Step:
    """An operation of a migration that is left out if it is done, and recorded when it is."""

    def __init__(self, operation: Operation, journal: Journal, number: int) -> None:
        self._operation = operation
        self._journal = journal
        self._number = number

    def __getattr__(self, name: str) -> Any:
        return getattr(self._operation, name)

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, old: Any, new: Any
    ) -> None:
        """Apply the operation with the statements that Django puts off until the end."""
        if self._journal.step(self._number):
            return
        self._operation.database_forwards(app_label, schema_editor, old, new)
        while schema_editor.deferred_sql:
            schema_editor.execute(schema_editor.deferred_sql.pop(0), None)
        self._journal.step_is_done()


class _Editor(BaseDatabaseSchemaEditor):
    """Django's schema editor, whose statements go through the journal."""

    journal: Journal

    def execute(self, sql: Any, params: Any = ()) -> None:
        """Run a statement unless it is done."""
        run = super().execute
        if self.connection.in_atomic_block or self.collect_sql:
            run(sql, params)
        else:
            # Without its values: a column's default may be the present time.
            self.journal.execute(str(sql), lambda: run(sql, params))


class Executor(MigrationExecutor):
    """Django's executor, which goes on where a killed one has stopped."""

    def __init__(self, connection: Any, progress_callback: Any, *, take_over: bool = False) -> None:
        super().__init__(connection, progress_callback)
        self._journal = Journal(connection, take_over=take_over)

    def apply_migration(
        self, state: Any, migration: Migration, fake: bool = False, fake_initial: bool = False
    ) -> Any:
        """Apply a migration operation by operation."""
        if fake:
            return super().apply_migration(state, migration, fake, fake_initial)
        self._journal.begin(migration)
        operations = migration.operations
        steps = [
            _Step(operation, self._journal, number) for number, operation in enumerate(operations)
        ]
        vars(migration)["operations"] = steps
        stock = self.connection.SchemaEditorClass
        self.connection.SchemaEditorClass = type(
            "Editor", (_Editor, stock), {"journal": self._journal}
        )
        try:
            return super().apply_migration(state, migration, fake, fake_initial)
        finally:
            self.connection.SchemaEditorClass = stock
            vars(migration)["operations"] = operations

    # The stubs know the form of Django 2.
    def record_migration(self, migration: Migration) -> None:  # type: ignore[override]
        """Record a migration as applied, and forget its steps, at once."""
        with transaction.atomic(using=self.connection.alias):
            super().record_migration(migration)  # type: ignore[call-arg, arg-type]
            self._journal.end()


@contextmanager
def journal(connection: BaseDatabaseWrapper, say: Callable[[str], None]) -> Iterator[None]:
    """Keep the table of the journal, and others from migrating, until all is done.

    A server goes on with a statement whose client was killed; its session, and so its lock, lasts
    as long.

    Raises:
        CommandError: another migrate works for longer than ``LONGEST_WAIT``.
    """
    with connection.cursor() as cursor:
        _lock(cursor, say)
        cursor.execute(
            f"CREATE TABLE IF NOT EXISTS {TABLE} (app VARCHAR(100), name VARCHAR(200), step INT, "
            f"statement CHAR(32), done BOOL NOT NULL, PRIMARY KEY (app, name, step, statement))"
        )
    yield
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE {TABLE}")
        cursor.execute("SELECT RELEASE_LOCK(CONCAT(DATABASE(), '.migrate'))")


def _lock(cursor: Any, say: Callable[[str], None]) -> None:
    for attempt in range(LONGEST_WAIT // _LOOK):
        cursor.execute("SELECT GET_LOCK(CONCAT(DATABASE(), '.migrate'), %s)", [_LOOK])
        if cursor.fetchone()[0]:
            return
        if not attempt:
            say("Another migrate, or the last statement of a killed one, is running: waiting.")
    raise CommandError(
        f"Another migrate has been running for {LONGEST_WAIT // 60} min: SHOW PROCESSLIST shows "
        f"what it does; run this again when it is done."
    )
