"""Reads a source's list into rows of fields: JSON with a mapping, CSV, or NetBox's REST API.

NetBox answers in pages with ``count``, ``next`` and ``results``
(https://netboxlabs.com/docs/netbox/integrations/rest-api/#pagination).
"""

import csv
import io
import json
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import urllib3

from soc.core.sealed import SealProblem
from soc.inventory.models import InventoryKind, InventorySource

TIMEOUT = urllib3.Timeout(connect=10.0, read=15.0)
PATIENCE = 25.0
"""Seconds that all pages may take: with the writing, less than the queue's time limit."""

MOST_OCTETS = 20_000_000
MOST_OBJECTS = 10_000

NETBOX = {
    InventoryKind.LOCATIONS: {"name": "name", "time_zone": "time_zone", "notes": "description"},
    InventoryKind.ROBOTS: {"host": "name", "site": "site.name", "notes": "description"},
    InventoryKind.ENDPOINTS: {"host": "device.name", "port": "ports.0", "notes": "description"},
    InventoryKind.DIRECTORIES: {"host": "device.name", "port": "ports.0", "notes": "description"},
}
"""Where NetBox has the fields: of sites, devices and services."""

Row = Mapping[str, Any]


class SourceProblem(Exception):
    """A list cannot be read; the text says why."""


def fetch(source: InventorySource) -> list[Row]:
    """Return the rows of a source, by the names of our fields.

    Raises:
        SourceProblem: it cannot be reached, refuses, or answers something else.
    """
    reader = _Reader(source)
    if source.shape == InventorySource.Shape.NETBOX:
        found = _netbox(reader, source.url)
    else:
        found = parse(reader.text(source.url), source.items)
    mapping = source.mapping
    if not mapping and source.shape == InventorySource.Shape.NETBOX:
        mapping = NETBOX[InventoryKind(source.kind)]
    return [mapped(one, mapping) for one in found]


def parse(text: str, items: str = "") -> list[Row]:
    """Return the objects of a JSON document or a CSV table.

    Raises:
        SourceProblem: it is neither.
    """
    if text.lstrip()[:1] not in ("[", "{"):
        return _table(text)
    found = value_at(_json(text), items) if items else _json(text)
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        where = f"At {items!r}" if items else "In the document"
        raise SourceProblem(f"{where} is no list of objects: set the path of the list.")
    return _bounded(found)


def mapped(one: Row, mapping: Mapping[str, str]) -> Row:
    """Return an object by the names of our fields."""
    if not mapping:
        return one
    return {
        name: path[1:] if path.startswith("=") else value_at(one, path)
        for name, path in mapping.items()
    }


def value_at(value: Any, path: str) -> Any:
    """Return what is at a path such as ``site.name`` or ``ports.0``; None if nothing is."""
    if isinstance(value, dict) and path in value:
        return value[path]
    for part in path.split("."):
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def _table(text: str) -> list[Row]:
    head = text.partition("\n")[0]
    # Spreadsheets of half of Europe write semicolons.
    delimiter = ";" if head.count(";") > head.count(",") else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        rows = [row for row in reader if any(isinstance(v, str) and v for v in row.values())]
    except csv.Error as error:
        raise SourceProblem(f"It is neither JSON nor CSV: {error}.") from error
    if any(None in row for row in rows):
        raise SourceProblem("A line of the table has more values than the head has columns.")
    return _bounded(rows)


def _netbox(reader: "_Reader", url: str) -> list[Row]:
    found: list[Row] = []
    counted = 0
    while url:
        page = _json(reader.text(url))
        results = page.get("results") if isinstance(page, dict) else None
        if not isinstance(results, list):
            raise SourceProblem("It has no results: use an address such as …/api/dcim/devices/.")
        found = _bounded([*found, *results])
        counted, url = int(page.get("count") or 0), page.get("next") or ""
    if len(found) < counted:
        raise SourceProblem(f"It counts {counted:,} objects and has sent {len(found):,}.")
    return found


class _Reader:
    """Asks one server for its pages, within one time."""

    def __init__(self, source: InventorySource) -> None:
        try:
            secret = source.authorization.reveal()
        except SealProblem as problem:
            raise SourceProblem(str(problem)) from problem
        self._headers = {"Accept": "application/json, text/csv"}
        if secret:
            self._headers["Authorization"] = secret
        authorities = source.authority.pem if source.authority else None
        context = ssl.create_default_context(cadata=authorities)
        self._pool = urllib3.PoolManager(ssl_context=context, retries=False, timeout=TIMEOUT)
        self._origin = _origin(source.url)
        self._until = time.monotonic() + PATIENCE

    def text(self, url: str) -> str:
        """Return what an address answers.

        Raises:
            SourceProblem: it is another server's, cannot be reached, refuses, or is not UTF-8.
        """
        if _origin(url) != self._origin:
            # It would get the secret.
            raise SourceProblem(f"The next page is elsewhere and is not followed: {url[:200]}.")
        if time.monotonic() > self._until:
            raise SourceProblem(f"It took more than {PATIENCE:.0f} s.")
        try:
            answer = self._pool.request(
                "GET", url, headers=self._headers, redirect=False, preload_content=False
            )
            body = answer.read(MOST_OCTETS + 1, decode_content=True)
            answer.release_conn()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise SourceProblem(f"{url} cannot be reached: {str(error)[:300]}") from error
        if answer.status != 200:
            raise SourceProblem(f"{url} answered {answer.status} {answer.reason}: {_said(body)}")
        if len(body) > MOST_OCTETS:
            raise SourceProblem(f"{url} answers more than {MOST_OCTETS:,} octets: ask for a part.")
        try:
            return body.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise SourceProblem(f"{url} does not answer UTF-8.") from error


def _said(body: bytes) -> str:
    return " ".join(body[:300].decode(errors="replace").split())


def _origin(url: str) -> tuple[str, str | None, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or 443


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SourceProblem(f"It is not JSON: {error}.") from error


def _bounded(found: Sequence[Row]) -> list[Row]:
    if len(found) > MOST_OBJECTS:
        raise SourceProblem(f"It has more than {MOST_OBJECTS:,} objects: make it several sources.")
    return list(found)
