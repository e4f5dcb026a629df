"""A program with a token, and something for it to see."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from programs import RIGHTS, Program, make_program

from soc.alerts.models import Alert, Rule, Subject
from soc.core.severity import Severity


@pytest.fixture
def program(db: None) -> Program:
    """A program that may do everything the API offers."""
    return make_program(*RIGHTS)


@pytest.fixture
def stranger(db: None) -> Program:
    return Program("")


@pytest.fixture
def rule(db: None) -> Rule:
    return Rule.objects.create(application="tests", name="works", runbook="https://wiki.test/w")


@pytest.fixture
def make_alert(rule: Rule) -> Callable[..., Alert]:
    """Open an alert of a subject that was seen an hour ago."""

    def make(subject: str = "bot-1", **values: Any) -> Alert:
        known, _ = Subject.objects.get_or_create(
            rule=rule, name=subject, defaults={"fingerprint": subject}
        )
        at = timezone.now() - timedelta(hours=1)
        defaults = {
            "severity": Severity.CRITICAL,
            "state": Alert.State.FIRING,
            "open_key": None if values.get("state") == "resolved" else subject,
            "opened_at": at,
            "last_seen_at": at,
        }
        return Alert.objects.create(rule=rule, subject=known, **defaults | values)

    return make
