"""What a number of logons amounts to: pure functions of what was reported."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import mean

from soc.logons.models import LogonEvent

State = LogonEvent.State


@dataclass(frozen=True)
class Logon:
    """One attempt, by the time of its robot; ``response`` in milliseconds."""

    bot: int
    at: datetime
    state: str
    event_id: int
    response: int | None = None
    broker: str = ""
    reason: str = ""


def failures(logons: Iterable[Logon], until: datetime, within: timedelta) -> list[Logon]:
    """Return the failed ones of the time that ends with ``until``."""
    return [
        logon
        for logon in logons
        if logon.state == State.FAILED and until - within < logon.at <= until
    ]


def mean_response(logons: Iterable[Logon], until: datetime, within: timedelta) -> timedelta | None:
    """Return the mean response of the time that ends with ``until``, or None without any."""
    measured = [
        logon.response
        for logon in logons
        if logon.response is not None and until - within < logon.at <= until
    ]
    return timedelta(milliseconds=mean(measured)) if measured else None


def clustered(
    logons: Iterable[Logon], event_ids: frozenset[int], size: int, within: timedelta
) -> list[Logon]:
    """Return the failures that lie in a cluster, in the order of their times.

    A cluster is ``size`` failures with these event ids in a span shorter than ``within``.
    """
    counted = sorted(
        (logon for logon in logons if logon.state == State.FAILED and logon.event_id in event_ids),
        key=lambda logon: logon.at,
    )
    return [counted[place] for place in sorted(_places(counted, size, within))]


def _places(counted: Sequence[Logon], size: int, within: timedelta) -> set[int]:
    places: set[int] = set()
    for first in range(len(counted) - size + 1):
        last = first + size - 1
        if counted[last].at - counted[first].at < within:
            places.update(range(first, last + 1))
    return places
