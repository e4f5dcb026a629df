"""What counts as an active beat and as late is the same on the board, in metrics and alerts."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from soc.alerts import own
from soc.beat.models import Instance
from soc.board import data as board
from soc.core.models import Heartbeat
from soc.core.severity import Severity
from soc.core.tokens import create

pytestmark = pytest.mark.django_db


def metric(name: str) -> float:
    user = User.objects.get_or_create(username="prometheus", is_superuser=True)[0]
    token = create("test", user)
    page = Client().get("/metrics", secure=True, headers={"Authorization": f"Bearer {token}"})
    lines = page.content.decode().splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


def shown(now: datetime) -> tuple[bool, bool, bool]:
    """Return whether board, metrics and alerts know of an active beat."""
    (beat,) = [part.data for part in board.read(now).parts if part.panel.name == "beat"]
    reported = [one for one in own.conditions(now) if one.rule == "beat-lag"]
    return beat.leader is not None, metric("soc_beat_leader") == 1, bool(reported)


def lead(now: datetime, lag: float = 0) -> None:
    Heartbeat.objects.create(service="beat", instance="one", seen_at=now)
    Instance.objects.create(
        name="one", leader=True, started_at=now, ticked_at=now, lag=lag, schedules=1,
        published=0, lost=0,
    )  # fmt: skip


@pytest.mark.parametrize(("seconds", "active"), [(5, True), (38, True), (50, False)])
def test_all_agree_on_whether_a_beat_is_active(seconds: int, active: bool) -> None:
    now = timezone.now()
    lead(now - timedelta(seconds=seconds))
    assert set(shown(now)) == {active}


@pytest.mark.parametrize(
    ("lag", "severity", "tone"),
    [(4.9, Severity.OK, ""), (6, Severity.WARNING, "warn"), (61, Severity.CRITICAL, "bad")],
)
def test_all_agree_on_how_late_is_late(lag: float, severity: Severity, tone: str) -> None:
    now = timezone.now()
    lead(now, lag)
    (condition,) = [one for one in own.conditions(now) if one.rule == "beat-lag"]
    assert condition.severity == severity
    late = [problem for problem in board.read(now).problems if "late" in problem.text]
    assert [problem.tone for problem in late] == ([tone] if tone else [])
