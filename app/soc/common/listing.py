"""Filtered lists: what a query string asks for, tabs, choices and pages of what is counted."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, Self
from urllib.parse import urlencode

from django.core.paginator import Paginator
from django.db.models import QuerySet

PAGE = 100
"""Rows of a page."""

LONGEST_TERM = 200


@dataclass(frozen=True)
class QueryFilter:
    """What a person asks to see, as it stands in the address; an unknown value matches nothing.

    The fields of a subclass are the names of the query string; all are texts.
    """

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Self:
        """Read a query string."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: query.get(name, "").strip()[:LONGEST_TERM] for name in names})

    @property
    def query(self) -> str:
        """The filter as a query string."""
        return urlencode({name: value for name, value in asdict(self).items() if value})

    def but(self, **values: str) -> Self:
        """Return the same filter with other values."""
        return type(self)(**asdict(self) | values)


@dataclass(frozen=True)
class Tab:
    """A status with the number of rows that have it and the query of their list."""

    label: str
    tone: str
    count: int
    query: str
    chosen: bool


@dataclass(frozen=True)
class Choice:
    """One value that a filter offers."""

    value: str
    label: str
    chosen: bool


def choices(chosen: str, pairs: Sequence[tuple[str, str]]) -> list[Choice]:
    """Return what a filter offers; what is chosen stays on offer: an empty list still says why."""
    if chosen and chosen not in dict(pairs):
        pairs = [*pairs, (chosen, chosen)]
    return [Choice(value, label, value == chosen) for value, label in pairs]


class CountedPages(Paginator):
    """Pages of rows that are counted already."""

    def __init__(self, rows: QuerySet[Any], count: int) -> None:
        """Take the rows in their order, and how many they are."""
        super().__init__(rows, PAGE)
        self._count = count

    @cached_property
    def count(self) -> int:
        """The number of rows."""
        return self._count
