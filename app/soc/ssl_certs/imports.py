"""Lists of endpoints to import: hosts, address ranges or CSV, judged line by line beforehand."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

from django.core.exceptions import ValidationError
from django.db import transaction

from soc.common.net import host_name
from soc.ssl_certs import searches
from soc.ssl_certs.models import Endpoint, Group, Search
from soc.trust.models import Authority

MOST_LINES = 10_000
COLUMNS = (
    *("host", "port", "server_name", "protocol", "authority", "group"),
    *("interval_minutes", "expected_issuer", "notes"),
)
"""The columns of a CSV list; its first line names them, and only the host has to be there."""

_WITHOUT_QUERIES = ("authority", "group")
"""Fields whose own check asks the database about every line."""


@dataclass(frozen=True)
class Defaults:
    """What holds for lines that do not say otherwise."""

    port: int = 443
    starttls: str = Endpoint.StartTls.NONE
    authority: Authority | None = None
    group: Group | None = None


@dataclass
class EndpointImportLine:
    """One line of a list: the endpoint or the addresses it means, or what is wrong with it."""

    number: int
    text: str
    endpoint: Endpoint | None = None
    targets: Sequence[tuple[str, int]] = ()
    problem: str = ""
    known: bool = False

    @property
    def tone(self) -> str:
        """How it looks."""
        if self.problem:
            return "bad"
        return "idle" if self.known else "ok"

    @property
    def verdict(self) -> str:
        """What an import makes of it."""
        if self.problem:
            return self.problem
        if self.targets:
            return f"{len(self.targets)} addresses are searched"
        return "is watched already" if self.known else "is new"


@dataclass(frozen=True)
class ImportPlan:
    """What an import would do."""

    lines: Sequence[EndpointImportLine]
    text: str = ""
    defaults: Defaults = field(default_factory=Defaults)

    @property
    def new(self) -> list[EndpointImportLine]:
        """The lines that add an endpoint."""
        return [line for line in self.lines if line.endpoint and not line.known]

    @property
    def known(self) -> int:
        """How many lines name what is watched already."""
        return sum(line.known for line in self.lines)

    @property
    def problems(self) -> list[EndpointImportLine]:
        """The lines that are not understood."""
        return [line for line in self.lines if line.problem]

    @property
    def targets(self) -> list[tuple[str, int]]:
        """The addresses that are searched, each once."""
        return list(dict.fromkeys(pair for line in self.lines for pair in line.targets))

    @property
    def does_something(self) -> bool:
        """Whether there is anything to import."""
        return bool(self.new or self.targets)


def plan(text: str, defaults: Defaults) -> ImportPlan:
    """Return what an import of a text would do, line by line; nothing is written.

    Blank lines and lines that begin with # are left out.
    """
    given = [
        (number, line.strip())
        for number, line in _rows(text.lstrip("\ufeff"))
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not given:
        return ImportPlan([], text, defaults)
    if len(given) > MOST_LINES:
        number, line = given[MOST_LINES]
        problem = f"these are more than {MOST_LINES:,} lines: import them in parts"
        return ImportPlan([EndpointImportLine(number, line[:200], problem=problem)], text, defaults)
    is_csv = _cells(given[0][1])[0].lower() in COLUMNS
    lines = list(_csv_lines(given, defaults) if is_csv else _plain_lines(given, defaults))
    _mark_known(lines)
    _bound_targets(lines)
    return ImportPlan(lines, text, defaults)


def _rows(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text with their numbers; one that ends within quotes goes on.

    Spreadsheets write a line break of a cell so (RFC 4180, 2.6). A quote that is never closed ends
    with its line, as it would otherwise take all the others along.
    """
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        line, end = lines[number], number + 1
        if line.count('"') % 2:
            rest = next((n for n in range(end, len(lines)) if lines[n].count('"') % 2), None)
            if rest is not None:
                end = rest + 1
                line = "\n".join(lines[number:end])
        yield number + 1, line
        number = end


def carry_out(plan: ImportPlan, by: str) -> Search | None:
    """Register the new endpoints of a plan, and ask for a search of its ranges if it has some."""
    with transaction.atomic():
        Endpoint.objects.bulk_create(
            [line.endpoint for line in plan.new if line.endpoint],
            batch_size=500,
            ignore_conflicts=True,
        )
        targets = plan.targets
        if not targets:
            return None
        ranges = [line.text for line in plan.lines if line.targets]
        search = Search(
            ranges=", ".join(ranges),
            targets=targets,
            starttls=plan.defaults.starttls,
            authority=plan.defaults.authority,
            group=plan.defaults.group,
            requested_by=by,
        )
        searches.ask(search)
    return search


def _mark_known(lines: Sequence[EndpointImportLine]) -> None:
    """Mark what is watched already, and what stands in the list twice."""
    hosts = {line.endpoint.host for line in lines if line.endpoint}
    identity = ("host", "port", "server_name")
    known = set(Endpoint.objects.filter(host__in=hosts).values_list(*identity))
    seen: dict[tuple[str, int, str], int] = {}
    for line in lines:
        if line.endpoint is None:
            continue
        key = tuple(getattr(line.endpoint, name) for name in identity)
        if key in seen:
            line.endpoint, line.problem = None, f"line {seen[key]} says the same"
        else:
            seen[key] = line.number
            line.known = key in known


def _bound_targets(lines: Sequence[EndpointImportLine]) -> None:
    total = 0
    for line in lines:
        total += len(line.targets)
        if line.targets and total > searches.MOST_ADDRESSES:
            line.targets = ()
            line.problem = (
                f"with it, more than {searches.MOST_ADDRESSES:,} addresses would be searched:"
                " import it in parts"
            )


# --- Plain lines --------------------------------------------------------------------------------


def _plain_lines(
    given: Sequence[tuple[int, str]], defaults: Defaults
) -> Iterator[EndpointImportLine]:
    """Read lines such as ``www.example.org``, ``[2001:db8::1]:8443 name`` or ``192.0.2.0/28:25``.

    A second word is the server name.
    """
    for number, text in given:
        line = EndpointImportLine(number, text[:200])
        try:
            words = text.split()
            if len(words) > 2:
                raise ValueError("a line is a host, a port after a colon, and maybe a server name")
            host, port = _host_and_port(words[0], defaults.port)
            if (found := searches.addresses(host)) is not None:
                # One more than is allowed says that it is too long, of however long a range.
                pairs = [(one, port) for one in islice(found, searches.MOST_ADDRESSES + 1)]
                line.targets = pairs
            else:
                server_name = words[1] if len(words) == 2 else ""
                line.endpoint = _endpoint(host, port, defaults, server_name=server_name)
        except (ValueError, ValidationError) as error:
            line.problem = _words(error)
        yield line


def _host_and_port(text: str, port: int) -> tuple[str, int]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("an IPv6 address with a port is written [address]:port")
        return host, _port(rest[1:]) if rest else port
    if text.count(":") > 1:
        return text, port
    host, colon, rest = text.partition(":")
    return host, _port(rest) if colon else port


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ValueError(f"Invalid port {text[:20]!r}: use 1 to 65535")
    return int(text)


# --- CSV ----------------------------------------------------------------------------------------


def _csv_lines(
    given: Sequence[tuple[int, str]], defaults: Defaults
) -> Iterator[EndpointImportLine]:
    number, header = given[0]
    columns = [cell.lower() for cell in _cells(header)]
    if unknown := [name for name in columns if name not in COLUMNS]:
        known = ", ".join(COLUMNS)
        problem = f"there is no column {unknown[0]!r}; the columns are {known}"
        yield EndpointImportLine(number, header[:200], problem=problem)
        return
    if "host" not in columns:
        yield EndpointImportLine(number, header[:200], problem="there is no column 'host'")
        return
    named = _Named()
    for number, text in given[1:]:
        line = EndpointImportLine(number, text[:200])
        try:
            cells = _cells(text)
            if len(cells) > len(columns):
                raise ValueError(f"it has {len(cells)} cells for {len(columns)} columns")
            values = {name: cell for name, cell in zip(columns, cells, strict=False) if cell}
            line.endpoint = _from_cells(values, defaults, named)
        except (ValueError, ValidationError) as error:
            line.problem = _words(error)
        yield line


def _cells(text: str) -> list[str]:
    # Spreadsheets of half the world put semicolons there.
    delimiter = ";" if text.count(";") > text.count(",") else ","
    return [
        cell.strip()
        for cell in next(csv.reader(text.splitlines(keepends=True), delimiter=delimiter))
    ]


_One = TypeVar("_One", Authority, Group)


class _Named:
    """The authorities and groups by their names."""

    def __init__(self) -> None:
        self._authorities = {one.name: one for one in Authority.objects.defer("pem")}
        self._groups = {group.name: group for group in Group.objects.all()}

    def authority(self, name: str) -> Authority:
        """Return an authority; raise ValueError if there is none of the name."""
        return _named(self._authorities, "authority", name)

    def group(self, name: str) -> Group:
        """Return a group; raise ValueError if there is none of the name."""
        return _named(self._groups, "group", name)


def _named(known: Mapping[str, _One], kind: str, name: str) -> _One:
    if name not in known:
        names = ", ".join(known) or "none"
        raise ValueError(f"there is no {kind} {name[:80]!r}, there are: {names}")
    return known[name]


def _from_cells(values: dict[str, str], defaults: Defaults, named: _Named) -> Endpoint:
    options: dict[str, Any] = {
        name: values[name] for name in ("server_name", "expected_issuer", "notes") if name in values
    }
    if "authority" in values:
        options["authority"] = named.authority(values["authority"])
    if "group" in values:
        options["group"] = named.group(values["group"])
    if "protocol" in values:
        options["starttls"] = _protocol(values["protocol"])
    if "interval_minutes" in values:
        if not values["interval_minutes"].isdecimal():
            raise ValueError(f"{values['interval_minutes'][:20]!r} is no number of minutes")
        options["interval_minutes"] = int(values["interval_minutes"])
    port = _port(values["port"]) if "port" in values else defaults.port
    return _endpoint(values.get("host", ""), port, defaults, **options)


def _protocol(text: str) -> str:
    name = text.lower()
    if name in ("tls", "https"):
        return Endpoint.StartTls.NONE
    if name not in Endpoint.StartTls.values:
        known = ", ".join(["tls", *filter(None, Endpoint.StartTls.values)])
        raise ValueError(f"there is no protocol {text[:20]!r}, there are: {known}")
    return name


# --- Endpoints ----------------------------------------------------------------------------------


def _endpoint(host: str, port: int, defaults: Defaults, **options: Any) -> Endpoint:
    """Return an endpoint that is not saved.

    Raises:
        ValueError: a name is none.
        ValidationError: a value is out of its bounds.
    """
    options = {
        "starttls": defaults.starttls,
        "authority": defaults.authority,
        "group": defaults.group,
        **options,
    }
    if options.get("server_name"):
        options["server_name"] = host_name(options["server_name"])
    endpoint = Endpoint(host=host_name(host), port=port, **options)
    endpoint.clean_fields(exclude=_WITHOUT_QUERIES)
    return endpoint


def _words(error: ValueError | ValidationError) -> str:
    if isinstance(error, ValidationError):
        return " ".join(f"{name}: {' '.join(texts)}" for name, texts in error.message_dict.items())
    return str(error)
