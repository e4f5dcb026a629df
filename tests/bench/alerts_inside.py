"""Reports conditions inside a container of the stack; prints reports/s and statements/report."""

import random
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import django

django.setup()

from django.db import connection, transaction  # noqa: E402
from django.utils import timezone  # noqa: E402

from soc.alerts import engine  # noqa: E402
from soc.alerts.conditions import Condition, fingerprint  # noqa: E402
from soc.alerts.models import Alert, AlertEvent, Rule, Subject  # noqa: E402
from soc.core.severity import Severity  # noqa: E402

SUBJECTS = 2_000
ROUNDS = 10
IN_TROUBLE = 0.10
CHANGES = 0.02
"""The share of subjects whose condition turns from one round to the next."""


def course() -> list[Condition]:
    """The same 20,000 conditions for every variant: rounds over all subjects, some in trouble."""
    dice = random.Random(7)
    start = timezone.now() - timedelta(seconds=ROUNDS)
    bad = [dice.random() < IN_TROUBLE for _ in range(SUBJECTS)]
    conditions = []
    for number in range(ROUNDS):
        for subject in range(SUBJECTS):
            bad[subject] ^= dice.random() < CHANGES
            conditions.append(
                Condition(
                    "bench",
                    "works",
                    f"bot-{subject}",
                    Severity.CRITICAL if bad[subject] else Severity.OK,
                    start + timedelta(seconds=number),
                    summary="It does not answer.",
                    facts={"Attempt": number},
                )
            )
    return conditions


def one_by_one(conditions: Sequence[Condition]) -> None:
    for condition in conditions:
        engine.report([condition])


def in_batches(conditions: Sequence[Condition]) -> None:
    engine.report(conditions)


def get_or_create(conditions: Sequence[Condition]) -> None:
    """What one would write first: open or close an alert, and no more than that.

    It knows no n-of-m, no late and no stale reports, no silences and no flapping, and two of them
    at once mail twice.
    """
    rule = Rule.objects.get(application="bench")
    for condition in conditions:
        key = fingerprint(condition.application, condition.rule, condition.subject)
        with transaction.atomic():
            subject, _ = Subject.objects.get_or_create(
                fingerprint=key, defaults={"rule": rule, "name": condition.subject}
            )
            if condition.severity:
                _open(rule, subject, condition)
            elif alert := Alert.objects.filter(open_key=key).first():
                alert.state, alert.open_key = Alert.State.RESOLVED, None
                alert.resolved_at = timezone.now()
                alert.save()
                _record(alert, "resolved")
            subject.severity, subject.observed_at = condition.severity, condition.observed_at
            subject.save()


def _open(rule: Rule, subject: Subject, condition: Condition) -> None:
    alert, created = Alert.objects.get_or_create(
        open_key=subject.fingerprint,
        defaults={
            "rule": rule,
            "subject": subject,
            "severity": condition.severity,
            "state": Alert.State.FIRING,
            "summary": condition.summary,
            "facts": dict(condition.facts),
            "opened_at": condition.observed_at,
            "last_seen_at": condition.observed_at,
        },
    )
    if created:
        _record(alert, "fired")
    else:
        alert.count += 1
        alert.last_seen_at = condition.observed_at
        alert.save()


def _record(alert: Alert, kind: str) -> None:
    AlertEvent.objects.create(alert=alert, kind=kind, after=alert.state, severity=alert.severity)


VARIANTS: dict[str, Callable[[Sequence[Condition]], None]] = {
    "ours": one_by_one,
    "ours_batched": in_batches,
    "get_or_create": get_or_create,
}


def main(variant: str) -> None:
    Rule.objects.filter(application="bench").delete()
    # Without mail, which costs the same in every variant; the naive one sends none.
    Rule.objects.create(application="bench", name="works", flap_changes=0)
    conditions = course()
    statements = 0

    def count(execute: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal statements
        statements += 1
        return execute(*arguments)

    with connection.execute_wrapper(count):
        began, cpu = time.perf_counter(), time.process_time()
        VARIANTS[variant](conditions)
        elapsed, used = time.perf_counter() - began, time.process_time() - cpu
    alerts = Alert.objects.filter(rule__application="bench").count()
    number = len(conditions)
    print(number / elapsed, statements / number, used / number * 1000, alerts)


if __name__ == "__main__":
    main(sys.argv[1])
