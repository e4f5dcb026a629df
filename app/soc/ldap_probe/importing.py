"""Servers from a table: CSV or JSON, checked line by line before anything is written."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models, transaction

from soc.ldap_probe.models import Credential, DirectoryServer, Profile
from soc.trust.models import Authority

COLUMNS = (
    *("host", "port", "security", "authority", "base", "filter", "credential", "profile"),
    *("certificate_name", "site", "group", "interval_minutes", "enabled", "notes"),
)
"""The columns of a table; only ``host`` is needed. What is not there stays as it is."""

MOST_BYTES = 2_000_000
MOST_LINES = 5_000

_NAMED: Mapping[str, type[models.Model]] = {
    "authority": Authority,
    "credential": Credential,
    "profile": Profile,
}
"""Columns that hold the name of something that must exist."""

_YES = {"1", "yes", "true", "on"}
_NO = {"0", "no", "false", "off"}


@dataclass(frozen=True)
class ServerImportLine:
    """What one line of the table means: ``new``, ``changed``, ``same`` or ``wrong``."""

    number: int
    name: str
    action: str
    said: str
    server: DirectoryServer | None = None


@dataclass(frozen=True)
class ImportReport:
    """What an import does, or would do."""

    lines: Sequence[ServerImportLine]
    done: bool

    def count(self, action: str) -> int:
        """Return how many lines have an action."""
        return sum(line.action == action for line in self.lines)

    @property
    def wrong(self) -> int:
        """How many lines are wrong; with one of them nothing is imported."""
        return self.count("wrong")

    @property
    def in_words(self) -> str:
        """What was done or would be, as a sentence."""
        numbers = f"{self.count('new')} new, {self.count('changed')} changed, {self.count('same')}"
        if self.wrong:
            return f"Nothing is imported: {self.wrong} of {len(self.lines)} lines are wrong."
        return f"{'Imported' if self.done else 'This would import'}: {numbers} the same."


def run(text: str, *, dry: bool = False) -> ImportReport:
    """Import a table, all of it or nothing, and report line by line; ``dry`` writes nothing.

    A server is known by its host and port; one that is known is changed.
    """
    with transaction.atomic():
        lines = list(_lines(text))
        done = bool(lines) and not dry and not any(line.action == "wrong" for line in lines)
        for line in lines if done else ():
            if line.server and line.action in ("new", "changed"):
                # One by one: a change of its name closes its alerts.
                line.server.save()
    return ImportReport(lines, done)


def _lines(text: str) -> Iterator[ServerImportLine]:
    try:
        rows = _rows(text)
    except (ValueError, csv.Error) as error:
        yield ServerImportLine(1, "", "wrong", str(error))
        return
    named = {
        column: {str(one): one for one in model._default_manager.all()}
        for column, model in _NAMED.items()
    }
    known = {str(server): server for server in DirectoryServer.objects.all()}
    seen: dict[str, int] = {}
    for number, row in rows[:MOST_LINES]:
        line = _line(number, row, named, known)
        if line.action != "wrong" and line.name in seen:
            said = f"The same server stands in line {seen[line.name]}."
            line = ServerImportLine(number, line.name, "wrong", said)
        seen.setdefault(line.name, number)
        yield line
    if len(rows) > MOST_LINES:
        said = f"The table has more than {MOST_LINES:,} lines: import it in parts."
        yield ServerImportLine(rows[MOST_LINES][0], "", "wrong", said)


def _rows(text: str) -> list[tuple[int, dict[str, Any]]]:
    """Return the rows of a table with their numbers.

    Raises:
        ValueError: it is neither JSON nor CSV with a head that names known columns.
    """
    if text.lstrip()[:1] in ("[", "{"):
        return _json_rows(text)
    head, _, _ = text.partition("\n")
    # Spreadsheets of half of Europe write semicolons.
    delimiter = ";" if head.count(";") > head.count(",") else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names = [(name or "").strip().lower() for name in reader.fieldnames or ()]
    _check_columns(names)
    reader.fieldnames = names
    return [
        (reader.line_num, row)
        for row in reader
        if any(value.strip() for value in row.values() if isinstance(value, str))
    ]


def _json_rows(text: str) -> list[tuple[int, dict[str, Any]]]:
    try:
        loaded = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"This is not JSON: {error}") from error
    rows = loaded.get("servers") if isinstance(loaded, dict) else loaded
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError('A list of objects is needed, or {"servers": [...]}.')
    _check_columns({name for row in rows for name in row} or {"host"})
    return list(enumerate(rows, 1))


def _check_columns(names: Any) -> None:
    if unknown := sorted(set(names) - set(COLUMNS)):
        raise ValueError(
            f"Unknown columns: {', '.join(map(repr, unknown))}. There are {', '.join(COLUMNS)}."
        )
    if "host" not in names:
        raise ValueError("There is no column host.")


def _line(
    number: int,
    row: Mapping[Any, Any],
    named: Mapping[str, Mapping[str, models.Model]],
    known: Mapping[str, DirectoryServer],
) -> ServerImportLine:
    label = str(row.get("host") or "")
    try:
        if None in row:
            raise ValueError("The line has more values than the head has columns.")
        values = {
            column: _value(column, value, named)
            for column, value in row.items()
            if value is not None
        }
        host = values.pop("host", "")
        port = values.pop("port", 636)
        label = f"{host}:{port}"
        server = known.get(label) or DirectoryServer(host=host, port=port)
        changed = [name for name, value in values.items() if getattr(server, name) != value]
        for name, value in values.items():
            setattr(server, name, value)
        server.clean_fields(exclude=set(_NAMED))
    except ValidationError as error:
        said = " ".join(f"{name}: {' '.join(texts)}" for name, texts in error.message_dict.items())
        return ServerImportLine(number, label, "wrong", said)
    except ValueError as error:
        return ServerImportLine(number, label, "wrong", str(error))
    if server.pk is None:
        return ServerImportLine(number, label, "new", server.site, server)
    if changed:
        return ServerImportLine(number, label, "changed", ", ".join(changed), server)
    return ServerImportLine(number, label, "same", "", server)


def _value(column: str, value: Any, named: Mapping[str, Mapping[str, models.Model]]) -> Any:
    """Return a cell as the model has it.

    Raises:
        ValueError: it cannot be that.
    """
    text = str(value).strip()
    if column in named:
        if not text:
            return None
        if text not in named[column]:
            raise ValueError(f"{column}: there is no {text!r}; create it in the admin first.")
        return named[column][text]
    if column in ("port", "interval_minutes"):
        if not text:
            field: Any = DirectoryServer._meta.get_field(column)
            return field.get_default()
        if not text.isascii() or not text.isdecimal() or len(text) > 9:
            raise ValueError(f"{column}: {text!r} is not a number.")
        return int(text)
    if column == "enabled":
        if text.lower() not in _YES | _NO | {""}:
            raise ValueError(f"enabled: {text!r} is neither yes nor no.")
        return text.lower() not in _NO
    if column == "security":
        return text.lower() or DirectoryServer.Security.LDAPS.value
    return text.lower().removesuffix(".") if column in ("host", "certificate_name") else text
