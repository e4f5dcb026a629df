"""Deadlocks: what is one transaction begins again."""

from __future__ import annotations

import pytest
from django.db import OperationalError

from soc.common import deadlocks
from soc.common.deadlocks import again_after_deadlock

DEADLOCK = OperationalError(deadlocks.DEADLOCK, "Deadlock found")


class Connection:
    """A connection outside of a transaction, or inside one."""

    def __init__(self, inside: bool = False) -> None:
        self.in_atomic_block = inside


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlocks, "connection", Connection())
    monkeypatch.setattr(deadlocks, "PAUSE", 0)


def call(errors: list[Exception]) -> str:
    @again_after_deadlock
    def work() -> str:
        if errors:
            raise errors.pop(0)
        return "done"

    return work()


def test_a_deadlock_is_tried_again() -> None:
    assert call([DEADLOCK, DEADLOCK]) == "done"


def test_deadlocks_without_end_are_an_error() -> None:
    errors: list[Exception] = [DEADLOCK] * 10
    with pytest.raises(OperationalError):
        call(errors)
    assert len(errors) == 10 - deadlocks.TRIES


def test_another_error_is_not_tried_again() -> None:
    errors: list[Exception] = [OperationalError(2006, "gone away"), DEADLOCK]
    with pytest.raises(OperationalError, match="gone away"):
        call(errors)
    assert errors == [DEADLOCK]


def test_inside_a_transaction_the_deadlock_is_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlocks, "connection", Connection(inside=True))
    errors: list[Exception] = [DEADLOCK]
    with pytest.raises(OperationalError):
        call(errors)
    assert errors == []
