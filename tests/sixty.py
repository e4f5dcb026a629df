"""Rounds over sixty entries that lead to one real directory, counted at both ends."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from mailing import Clock
from soc.alerts.models import OPEN, Alert
from soc.ldap_probe import rounds
from soc.ldap_probe.models import DirectoryServer
from soc.ldap_probe.session import Session

SERVERS = 60
APART = (5, 5, 5, 15, 60, 1440)
"""The minutes between rounds: a retry by time would show."""


def register(common: dict[str, Any], first: dict[str, Any]) -> None:
    """Register the servers; ``first`` are values of the first one, which has its own problem."""
    for n in range(SERVERS):
        values = common | (first if n == 0 else {})
        DirectoryServer.objects.create(**{"host": f"127.0.1.{n + 1}"} | values)


def binds_of_rounds(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return how many binds each round has made."""
    binds: list[int] = []
    bind = Session.bind

    def counting(session: Session, *arguments: Any) -> Any:
        # An empty password is never sent.
        binds[-1] += bool(session.target.password)
        return bind(session, *arguments)

    monkeypatch.setattr(Session, "bind", counting)
    for minutes in APART:
        binds.append(0)
        DirectoryServer.objects.update(next_probe_at=clock.now)
        rounds.run()
        clock.now += timedelta(minutes=minutes)
    return binds


def firing() -> list[str]:
    """Return the rules of the alerts that fire, one for each alert."""
    opened = Alert.objects.filter(OPEN, state=Alert.State.FIRING)
    return sorted(opened.values_list("rule__name", flat=True))
