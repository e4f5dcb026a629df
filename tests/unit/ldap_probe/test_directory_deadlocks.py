"""Rounds of directory probes whose transaction begins again, outside of a test's own."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from answering import DOWN, Directory, another_round, reloaded, server
from django.db import OperationalError

from soc.common import deadlocks
from soc.ldap_probe import rounds


@pytest.mark.usefixtures("transactional_db")
def test_a_transaction_that_begins_again_counts_a_failure_once(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = server("dc1")
    directory.says["dc1"] = DOWN
    report, calls = rounds.conditions.report, itertools.count()

    def deadlocked_once(*args: Any, **kwargs: Any) -> int:
        if next(calls) == 0:
            raise OperationalError(deadlocks.DEADLOCK, "Deadlock found")
        return report(*args, **kwargs)

    monkeypatch.setattr(rounds.conditions, "report", deadlocked_once)
    another_round()
    assert (next(calls), reloaded(one).failures, reloaded(one).recent) == (2, 1, [None])
