"""Expiry policies: one place of the thresholds, which an operator can change."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from soc.ssl_certs import expiry, models
from soc.ssl_certs.models import Endpoint, Group

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def nothing_is_remembered() -> Iterator[None]:
    """What a rolled back test has set is not the default of the next one."""
    yield
    models._default_policy.cache_clear()


def nearness(endpoint: Endpoint, days: float) -> str:
    begin, end = NOW - timedelta(days=300), NOW + timedelta(days=days)
    return endpoint.limits.nearness(begin, end, NOW)


@pytest.mark.django_db
def test_a_new_site_has_one_default_policy_with_the_thresholds_of_the_code() -> None:
    policy = Group.objects.get(is_default=True)
    assert policy.limits == Group(name="new").limits == expiry.DEFAULT


@pytest.mark.django_db
def test_the_default_policy_holds_for_endpoints_without_one() -> None:
    own = Group.objects.create(name="own", warning_days=90, warning_share=100)
    assert nearness(Endpoint(), 40) == "ok"
    assert nearness(Endpoint(group=own), 40) == "warning"
    policy = Group.objects.get(is_default=True)
    policy.warning_days = 45
    policy.save()
    assert nearness(Endpoint(), 40) == "warning"
    own.is_default = True
    own.save()
    assert list(Group.objects.filter(is_default=True)) == [own]
    assert nearness(Endpoint(), 60) == "warning"


@pytest.mark.django_db
def test_without_a_default_policy_the_thresholds_of_the_code_hold() -> None:
    Group.objects.get(is_default=True).delete()
    Group(name="another").save()
    assert Endpoint().limits == expiry.DEFAULT
