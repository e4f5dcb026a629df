"""Due times that a clock wrote which was ahead."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from soc.common import due
from soc.ssl_certs import scan
from soc.ssl_certs.models import Endpoint
from soc.trust import crls
from soc.trust.models import RevocationList

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)


def test_an_endpoint_that_is_due_later_than_its_interval_is_due_now() -> None:
    now = timezone.now()
    made = {
        name: Endpoint.objects.create(
            host=name, interval_minutes=minutes, next_scan_at=now + hours * HOUR
        )
        for name, minutes, hours in (
            *(("ahead", 60, 300 * 24), ("a little", 60, 1.3), ("its turn", 60, 0.99)),
            ("seldom", 31 * 24 * 60, 30 * 24),
        )
    }
    assert sorted(scan.claim_due()) == [made["ahead"].pk, made["a little"].pk]
    assert scan.claim_due() == []


def test_a_list_that_is_due_later_than_any_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crls, "_body", lambda _: b"")
    now = timezone.now()
    for name, hours in (("ahead", 13), ("later", 11)):
        RevocationList.objects.create(url=name, next_fetch_at=now + hours * HOUR)
    assert crls.fetch_due() == 1
    assert RevocationList.objects.get(url="ahead").error


def test_a_clock_that_is_right_costs_one_statement() -> None:
    now = timezone.now()
    Endpoint.objects.create(host="a.internal", next_scan_at=now)
    with CaptureQueriesContext(connection) as statements:
        assert due.recall(Endpoint.objects.all(), "next_scan_at", HOUR, now) == 0
    assert len(statements) == 1
