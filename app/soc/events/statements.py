"""Statements of many rows that Django does not write, for tables that the stream writes to."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.db import connection

_IGNORE = {"mysql": "INSERT IGNORE", "sqlite": "INSERT OR IGNORE"}


def greatest(column: str) -> str:
    """Return the expression of `upsert` that keeps the greater of two values, or the known one."""
    return _of_two("GREATEST" if connection.vendor == "mysql" else "MAX", column)


def least(column: str) -> str:
    """Return the expression of `upsert` that keeps the lesser of two values, or the known one."""
    return _of_two("LEAST" if connection.vendor == "mysql" else "MIN", column)


def _of_two(function: str, column: str) -> str:
    # Of a value that is unknown both functions would make an unknown one.
    return f"{function}(COALESCE({column}, {{new}}), COALESCE({{new}}, {column}))"


def insert(table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> int:
    """Insert rows in one statement; return how many were new."""
    sql = f"{_IGNORE[connection.vendor]} INTO {table} ({', '.join(columns)}) VALUES "
    with connection.cursor() as cursor:
        cursor.execute(sql + _places(rows), _flat(rows))
        return int(cursor.rowcount)


def upsert(
    table: str, key: Sequence[str], sums: Mapping[str, str], rows: Sequence[tuple[Any, ...]]
) -> None:
    """Insert rows in one statement; where the key exists, each column becomes its expression.

    ``{new}`` in an expression stands for the new value.
    """
    if not rows:
        return
    if connection.vendor == "mysql":
        new, conflict = "VALUES({column})", "ON DUPLICATE KEY UPDATE"
    else:
        new, conflict = "excluded.{column}", f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET"
    updates = ", ".join(
        f"{column} = {expression.format(new=new.format(column=column))}"
        for column, expression in sums.items()
    )
    sql = f"INSERT INTO {table} ({', '.join((*key, *sums))}) VALUES {_places(rows)} "  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(f"{sql}{conflict} {updates}", _flat(rows))


def _places(rows: Sequence[tuple[Any, ...]]) -> str:
    row = f"({', '.join(['%s'] * len(rows[0]))})"
    return ", ".join([row] * len(rows))


def _flat(rows: Iterable[tuple[Any, ...]]) -> list[Any]:
    return [value for row in rows for value in row]
