"""Readiness asks for what the service lives on, and a shortage of storage is named."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test import Client
from django.utils import timezone

from soc.alerts import own
from soc.board import data
from soc.core import readiness, storage
from soc.core.models import Heartbeat
from soc.core.severity import Severity

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    readiness._recent_problem.cache_clear()
    yield
    readiness._recent_problem.cache_clear()


def ready() -> tuple[int, str]:
    answer = Client().get("/readyz", secure=True)
    return answer.status_code, answer.content.decode()


def left(monkeypatch: pytest.MonkeyPatch, space: float, inodes: float = 0.5) -> None:
    monkeypatch.setattr(storage, "free", lambda: storage.Free(space, inodes))


# --- Readiness ----------------------------------------------------------------------------------


def test_a_table_that_cannot_be_read_is_no_readiness() -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE alerts_silence RENAME TO lost")
    assert ready() == (503, "not ready: a table of the database cannot be read\n")


def test_a_database_that_takes_no_rows_is_no_readiness(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise OperationalError(1114, "The table is full")

    monkeypatch.setattr(Heartbeat.objects, "create", full)
    left(monkeypatch, 0.01)
    status, text = ready()
    assert status == 503
    assert text.startswith(
        "not ready: the database takes no rows: The storage of the volumes has 1%"
    )


def test_what_readiness_writes_is_taken_back_and_what_it_costs_is_bounded(
    django_assert_num_queries: Any,
) -> None:
    assert ready() == (200, "ready\n")
    assert not Heartbeat.objects.exists()
    # Within a moment the answer stands, whoever asks.
    with django_assert_num_queries(0):
        for _ in range(20):
            readiness._recent_problem(readiness._moment())


# --- Storage ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "inodes", "severity", "words"),
    [
        (0.5, 0.5, Severity.OK, ""),
        (0.14, 0.5, Severity.WARNING, "14% of its space free"),
        (0.04, 0.1, Severity.CRITICAL, "4% of its space free"),
        (0.5, 0.02, Severity.CRITICAL, "2% of its inodes free"),
    ],
)
def test_a_shortage_has_two_levels_and_names_itself(
    space: float, inodes: float, severity: Severity, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left(monkeypatch, space, inodes)
    now = timezone.now()
    (condition,) = [one for one in own.conditions(now) if one.rule == "storage"]
    assert condition.severity == severity
    assert words in condition.summary
    troubles = data.read(now).problems
    tones = [one.tone for one in troubles if one.text.startswith("The storage of the volumes")]
    assert tones == {Severity.OK: [], Severity.WARNING: ["warn"]}.get(severity, ["bad"])
    if severity == Severity.CRITICAL:
        assert words in troubles[0].text


def test_a_file_system_without_a_number_of_inodes_has_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fields = list(os.statvfs("/"))
    fields[5:8] = [0, 0, 0]
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(fields))
    assert storage.free().inodes == 1.0
