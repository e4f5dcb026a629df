"""The certificates' part of the board: how many endpoints have each status, and the worst."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from soc.common.listing import Tab
from soc.common.panels import Panel
from soc.ssl_certs import pages

MOST_ENDPOINTS = 50


@dataclass(frozen=True)
class WorstEndpoints:
    """The enabled endpoints, the worst first, as their own page shows them."""

    tabs: Sequence[Tab]
    rows: Sequence[pages.EndpointRow]

    @property
    def total(self) -> int:
        """How many endpoints are watched."""
        return sum(tab.count for tab in self.tabs)

    @property
    def rest(self) -> int:
        """How many of them are not listed."""
        return self.total - len(self.rows)


def read(now: datetime) -> WorstEndpoints:
    """Return the counts by status and the worst endpoints."""
    query = pages.EndpointFilter()
    of_each_status = pages.tabs(query, pages.counts(query))[1:]
    return WorstEndpoints(of_each_status, pages.worst(MOST_ENDPOINTS, now))


PANELS = (
    Panel(
        name="certificates",
        read=read,
        template="certificates/panel.html",
        permission="ssl_certs.view_endpoint",
        position=20,
    ),
)
