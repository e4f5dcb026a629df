"""Subscriptions: what their forms refuse, what they want, and when they are quiet."""

from __future__ import annotations

from datetime import UTC, datetime, time
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from soc.core.severity import Severity
from soc.notify.models import (
    Subscription,
    validate_addresses,
    validate_applications,
    validate_recipients,
    validate_tags,
)


@pytest.mark.parametrize("value", ["", "a@b.internal\nnobody", "a b@c.internal", "<x@y.internal>"])
def test_bad_recipients_are_refused(value: str) -> None:
    with pytest.raises(ValidationError):
        validate_recipients(value)


def test_the_bad_recipient_is_named() -> None:
    with pytest.raises(ValidationError, match="Not a mail address: nobody, x@"):
        validate_recipients("good@health.internal\nnobody\nx@")


def test_fallback_recipients_may_be_none_but_not_wrong() -> None:
    validate_addresses("")
    with pytest.raises(ValidationError, match="Not a mail address: nobody"):
        validate_addresses("good@health.internal\nnobody")


def test_a_line_cannot_smuggle_a_second_address() -> None:
    for value in ("a@b.internal, c@d.internal", "a@b.internal\x0bBcc: c@d.internal"):
        with pytest.raises(ValidationError):
            validate_recipients(value)


def test_an_address_that_stands_twice_counts_once() -> None:
    subscription = Subscription(recipients="a@b.internal\n\n a@b.internal \nc@b.internal")
    assert subscription.addresses == ["a@b.internal", "c@b.internal"]


def test_bad_tags_are_refused() -> None:
    validate_tags("SOC, CERT-1")
    for tag in ("a b", "x]\r\nBcc: a@b.internal"):
        with pytest.raises(ValidationError, match="Not a tag"):
            validate_tags(f"SOC, {tag}")


@pytest.mark.django_db
def test_an_unknown_application_is_named_with_those_that_exist() -> None:
    validate_applications("")
    validate_applications("ssl_certs, core")
    with pytest.raises(ValidationError, match=r"Not an application: mars\. There are .*ssl_certs"):
        validate_applications("ssl_certs, mars")


@pytest.mark.parametrize(
    ("minimum", "applications", "severity", "application", "wanted"),
    [
        (Severity.INFO, "", Severity.INFO, "events", True),
        (Severity.WARNING, "", Severity.INFO, "events", False),
        (Severity.WARNING, "", Severity.WARNING, "events", True),
        (Severity.INFO, "ssl_certs", Severity.CRITICAL, "events", False),
        (Severity.INFO, "ssl_certs, events", Severity.INFO, "events", True),
        (Severity.INFO, "ssl_certs", Severity.INFO, "", True),
    ],
)
def test_it_wants(
    minimum: Severity, applications: str, severity: Severity, application: str, wanted: bool
) -> None:
    subscription = Subscription(minimum_severity=minimum, applications=applications)
    assert subscription.wants(severity, application) is wanted


@pytest.mark.parametrize(
    "hours", [{"quiet_from": time(22)}, {"quiet_until": time(6)},
              {"quiet_from": time(6), "quiet_until": time(6)}],
)  # fmt: skip
def test_half_or_empty_quiet_hours_are_refused(hours: dict[str, time]) -> None:
    with pytest.raises(ValidationError, match="Quiet hours"):
        Subscription(name="s", recipients="a@b.internal", **hours).clean()


def quiet(start: time, end: time, **values: Any) -> Subscription:
    return Subscription(quiet_from=start, quiet_until=end, **values)


@pytest.mark.parametrize(
    ("hour", "end"),
    [
        ("21:59", None),
        ("22:00", "2026-03-03T06:00"),
        ("23:59", "2026-03-03T06:00"),
        ("00:00", "2026-03-02T06:00"),
        ("05:59", "2026-03-02T06:00"),
        ("06:00", None),
    ],
)
def test_quiet_hours_may_cross_midnight(hour: str, end: str | None) -> None:
    now = datetime.fromisoformat(f"2026-03-02T{hour}:00+00:00")
    found = quiet(time(22), time(6)).quiet_end(now)
    assert found == (end and datetime.fromisoformat(f"{end}:00+00:00"))


def test_quiet_hours_within_a_day() -> None:
    lunch = quiet(time(12), time(13))
    assert lunch.quiet_end(datetime(2026, 3, 2, 11, 59, tzinfo=UTC)) is None
    noon = datetime(2026, 3, 2, 12, 30, tzinfo=UTC)
    assert lunch.quiet_end(noon) == datetime(2026, 3, 2, 13, tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "start", "end", "expected"),
    [
        # Berlin puts its clock forward at 01:00 UTC: there is no 02:30, and 06:00 is 04:00 UTC.
        ("2026-03-28T23:00", time(22), time(6), "2026-03-29T04:00"),
        ("2026-03-29T00:30", time(22), time(2, 30), "2026-03-29T01:30"),
        # And back at 01:00 UTC: 02:30 comes twice, at 00:30 and 01:30 UTC.
        ("2026-10-24T22:00", time(22), time(6), "2026-10-25T05:00"),
        ("2026-10-25T00:10", time(22), time(2, 30), "2026-10-25T00:30"),
        ("2026-10-25T00:40", time(22), time(2, 30), None),
        ("2026-10-25T01:10", time(22), time(2, 30), "2026-10-25T01:30"),
        ("2026-10-25T01:30", time(22), time(2, 30), None),
    ],
)
def test_quiet_hours_survive_the_change_of_clocks(
    now: str, start: time, end: time, expected: str | None
) -> None:
    with timezone.override("Europe/Berlin"):
        found = quiet(start, end).quiet_end(datetime.fromisoformat(f"{now}+00:00"))
    expected_moment = expected and datetime.fromisoformat(f"{expected}+00:00").timestamp()
    assert (found and found.timestamp()) == expected_moment


def test_a_severe_notice_breaks_through_quiet_hours() -> None:
    night = datetime(2026, 3, 2, 23, tzinfo=UTC)
    hours = quiet(time(22), time(6))
    assert hours.held_until(Severity.WARNING, night)
    assert hours.held_until(Severity.CRITICAL, night) is None
    hours.quiet_breakthrough = None
    assert hours.held_until(Severity.CRITICAL, night)
