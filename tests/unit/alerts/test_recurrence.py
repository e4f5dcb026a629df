"""Silences that repeat."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from soc.alerts import recurrence
from soc.alerts.models import Silence

ZONE = ZoneInfo("America/Vancouver")


@pytest.fixture(autouse=True)
def in_vancouver() -> object:
    with timezone.override(ZONE):
        yield


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZONE)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("every sunday", "FREQ="),
        ("FREQ=MINUTELY", "FREQ="),
        ("FREQ=DAILY;BYHOUR=1,2", "leave BYHOUR out"),
        ("FREQ=WEEKLY;BYDAY=XX", "not an RRULE"),
        ("FREQ=WEEKLY;INTERVAL=soon", "not an RRULE"),
        ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30", "never comes"),
        ("FREQ=DAILY;UNTIL=20200101T000000Z", "not an RRULE"),
    ],
)
def test_a_bad_rule_is_refused_with_the_reason(rule: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        recurrence.validate(rule)


@pytest.mark.parametrize("rule", ["FREQ=DAILY", "freq=weekly;byday=su", "FREQ=MONTHLY;BYDAY=2TU"])
def test_good_rules_are_taken(rule: str) -> None:
    recurrence.validate(rule)


def test_once_is_once() -> None:
    start, end = at("2026-05-01 10:00"), at("2026-05-01 11:00")
    assert recurrence.is_within(start, end, "", start)
    assert not recurrence.is_within(start, end, "", end)
    assert not recurrence.is_within(start, end, "", start - timedelta(seconds=1))


def test_a_weekly_window_stays_at_its_hour_when_the_clocks_change() -> None:
    start, end = at("2026-10-25 02:00"), at("2026-10-25 04:00")
    sundays = recurrence.upcoming(start, end, "FREQ=WEEKLY;BYDAY=SU", start)
    assert [f"{begin:%d %H:%M %z}" for begin, _ in islice(sundays, 3)] == [
        *("25 02:00 -0700", "01 02:00 -0800", "08 02:00 -0800")
    ]
    for day, inside in (("2026-11-01", True), ("2026-11-02", False), ("2026-11-08", True)):
        assert recurrence.is_within(start, end, "FREQ=WEEKLY", at(f"{day} 03:59")) == inside
        assert not recurrence.is_within(start, end, "FREQ=WEEKLY", at(f"{day} 04:00"))


def test_a_window_may_cross_midnight() -> None:
    start, end = at("2026-05-01 22:00"), at("2026-05-02 06:00")
    assert recurrence.is_within(start, end, "FREQ=DAILY", at("2026-05-20 05:59"))
    assert not recurrence.is_within(start, end, "FREQ=DAILY", at("2026-05-20 06:00"))


def test_a_silence_that_is_never_quiet_or_always_is_refused() -> None:
    start = at("2026-05-01 10:00")
    with pytest.raises(ValidationError, match="ends before it starts"):
        Silence(comment="x", starts_at=start, ends_at=start).full_clean()
    two_days = start + timedelta(days=2)
    with pytest.raises(ValidationError, match="repeats before it ends"):
        Silence(comment="x", starts_at=start, ends_at=two_days, recurrence="FREQ=DAILY").clean()


def test_a_rule_that_cannot_be_read_is_one_error_and_no_crash() -> None:
    start = at("2026-05-01 10:00")
    silence = Silence(comment="x", starts_at=start, ends_at=start + timedelta(hours=1))
    silence.recurrence = "FREQ=WEEKLY;BYDAY=XX"
    with pytest.raises(ValidationError, match="not an RRULE"):
        silence.full_clean()
