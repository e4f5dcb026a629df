"""A directory that answers rounds of probes as a test says."""

from __future__ import annotations

import pytest
from answering import Directory

from soc.ldap_probe import rounds


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Directory:
    made = Directory()
    monkeypatch.setattr(rounds, "probe", made.probe)
    monkeypatch.setattr(rounds, "HAS_CLIENT", True)
    return made
