"""What the journal of a migration lets be done again, and what it does not."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations import Migration

from soc.core.resumable import TABLE, Journal, _Editor

pytestmark = pytest.mark.django_db

EXISTS = OperationalError(1050, "Table 't' already exists")
REFUSED = OperationalError(1142, "CREATE command denied")
LOST = OperationalError(2013, "Lost connection to server during query")


@pytest.fixture(autouse=True)
def table(db: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            f"CREATE TABLE {TABLE} (app text, name text, step int, statement text, done bool, "
            f"PRIMARY KEY (app, name, step, statement))"
        )


def journal(*, take_over: bool = False) -> Journal:
    """Return the journal as the next process reads it."""
    one = Journal(connection, take_over=take_over)
    one.begin(Migration("0001_initial", "core"))
    one.step(0)
    return one


def doing(error: Exception | None = None) -> Callable[[], None]:
    def run() -> None:
        run.calls += 1
        if error:
            raise error

    run.calls = 0
    return run


def test_what_is_done_is_not_done_again() -> None:
    run = doing()
    journal().execute("CREATE TABLE t", run)
    journal().execute("CREATE TABLE t", run)
    assert run.calls == 1
    other = journal()
    other.step(1)
    other.execute("CREATE TABLE t", run)
    assert run.calls == 2, "another operation may say the same"
    other.step_is_done()
    assert journal().step(1)
    assert not journal().step(0)


@pytest.mark.parametrize("end", [KeyboardInterrupt(), LOST])
def test_a_statement_in_doubt_may_have_been_done(end: BaseException) -> None:
    with pytest.raises(type(end)):
        journal().execute("CREATE TABLE t", doing(end))
    journal().execute("CREATE TABLE t", doing(EXISTS))


@pytest.mark.parametrize("error", [EXISTS, REFUSED])
def test_a_statement_that_was_refused_is_not_in_doubt(error: OperationalError) -> None:
    for _ in range(2):
        with pytest.raises(OperationalError, match=str(error.args[0])):
            journal().execute("CREATE TABLE t", doing(error))


def test_a_statement_is_the_same_whatever_the_time_is() -> None:
    """The default of a new column may be the present time."""
    ran: list[str] = []

    class Stock(BaseDatabaseSchemaEditor):
        def execute(self, sql: Any, params: Any = ()) -> None:
            ran.append(sql)

    database = SimpleNamespace(in_atomic_block=False, features=connection.features)
    for at in ("10:00", "10:01"):
        editor = type("Editor", (_Editor, Stock), {"journal": journal()})(database)
        editor.execute("ALTER TABLE t ADD COLUMN c datetime DEFAULT %s", [at])
    assert len(ran) == 1


def test_what_an_older_version_left_is_taken_over_only_when_asked() -> None:
    with pytest.raises(OperationalError) as raised:
        journal().execute("CREATE TABLE t", doing(EXISTS))
    assert "core.0001_initial was perhaps interrupted" in raised.value.__notes__[0]
    assert "--take-over" in raised.value.__notes__[0]
    one = journal(take_over=True)
    one.execute("CREATE TABLE t", doing(EXISTS))
    with pytest.raises(OperationalError):
        one.execute("CREATE TABLE u", doing(REFUSED))
    one.end()
    with pytest.raises(OperationalError):
        one.execute("CREATE TABLE v", doing(EXISTS))
