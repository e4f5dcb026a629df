"""What happens to alerts by the clock: reminders, escalations, silences, the end of flapping."""

import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import QuerySet

from soc.alerts import actions, life
from soc.alerts.changes import UNACKNOWLEDGED, Outrun, change, ending, timers, write
from soc.alerts.engine import settle, standing
from soc.alerts.models import OPEN, Alert, AlertEvent
from soc.alerts.quiet import Quiet

State = Alert.State
Kind = AlertEvent.Kind

logger = logging.getLogger(__name__)


def run(now: datetime) -> int:
    """Do what is due at a moment, and return how many mails that makes."""
    quiet = Quiet(now)
    _close_disabled()
    return sum(
        (
            _each(_firing(quiet), lambda alert: _hush(alert, quiet)),
            # What depends on something else waits for a report of its own: what it reported while
            # that was failing says nothing.
            _each(_open(State.SUPPRESSED, subject__parent=""), lambda alert: _wake(alert, quiet)),
            _each(_open(State.FLAPPING), lambda alert: _calm(alert, quiet)),
            _each(
                _open(State.ACKNOWLEDGED, acknowledged_until__lte=now),
                lambda alert: _lapse(alert, quiet),
            ),
            _each(_open(State.FLAPPING, acknowledged_until__lte=now), _forget_person),
            _each(_to_escalate(now), _escalate),
            _each(_open(State.FIRING, remind_at__lte=now), lambda alert: _remind(alert, now)),
        )
    )


def _open(state: State, **conditions: object) -> QuerySet[Alert]:
    alerts = Alert.objects.filter(OPEN, state=state, **conditions).order_by("pk")
    return alerts.select_related("rule", "subject__rule", "subject__alert")


def _to_escalate(now: datetime) -> QuerySet[Alert]:
    due = _open(State.FIRING, escalate_at__lte=now)
    return due.prefetch_related("rule__steps__subscription")


def _firing(quiet: Quiet) -> QuerySet[Alert]:
    """Return the alerts that may have to be suppressed."""
    firing = _open(State.FIRING)
    return firing if quiet.any_silence else firing.exclude(subject__parent="")


def _each(alerts: QuerySet[Alert], act: Callable[[Alert], int]) -> int:
    """Act on alerts one by one; one that somebody else changes meanwhile has its turn later."""
    mails = 0
    for alert in alerts:
        try:
            with transaction.atomic():
                mails += act(alert)
        except Outrun:
            logger.info("Alert %s changed meanwhile: left to the next round", alert.pk)
    return mails


def _hush(alert: Alert, quiet: Quiet, more: Mapping[str, object] | None = None) -> int:
    why = quiet.over(alert.subject)
    if not why:
        return 0
    values = {
        "state": State.SUPPRESSED,
        "suppressed_by": why,
        "remind_at": None,
        "escalate_at": None,
        **(more or {}),
    }
    return change(alert, Kind.SUPPRESSED, values, text=why)


def _wake(alert: Alert, quiet: Quiet) -> int:
    if quiet.over(alert.subject):
        return 0
    due = timers(alert.rule, State.FIRING, alert.severity, quiet.now)
    values = {"state": State.FIRING, "peak": alert.severity, "suppressed_by": "", **due}
    return change(alert, Kind.FIRED, values)


def _calm(alert: Alert, quiet: Quiet) -> int:
    before = standing(alert.subject)
    after = life.calm(alert.rule, before, quiet.now)
    if after.event is None:
        return 0
    settle(alert.subject, after)
    if after.event == Kind.RESOLVED:
        return change(alert, Kind.RESOLVED, ending())
    if after.state == State.FIRING and quiet.over(alert.subject):
        return _hush(alert, quiet)
    due = timers(alert.rule, after.state, after.severity, quiet.now)
    values = {"state": after.state, "severity": after.severity, "peak": after.peak, **due}
    return change(alert, Kind.STEADY, values)


def _lapse(alert: Alert, quiet: Quiet) -> int:
    """End an acknowledgement whose time is up: the alert waits for a person again."""
    if quiet.over(alert.subject):
        return _hush(alert, quiet, UNACKNOWLEDGED)
    due = timers(alert.rule, State.FIRING, alert.severity, quiet.now)
    values = {"state": State.FIRING, "peak": alert.severity, **UNACKNOWLEDGED, **due}
    return change(alert, Kind.LAPSED, values)


def _forget_person(alert: Alert) -> int:
    """Do the same to an alert that flaps, which makes no noise all the same."""
    return change(alert, Kind.LAPSED, UNACKNOWLEDGED)


def _escalate(alert: Alert) -> int:
    """Do the next step of a rule's escalation, and plan the one after it."""
    steps = list(alert.rule.steps.all())[alert.escalated :]
    if not steps or alert.escalate_at is None:
        # Its steps were taken away meanwhile.
        write(alert, escalate_at=None)
        return 0
    wait = timedelta(minutes=steps[1].after - steps[0].after) if steps[1:] else None
    values = {
        "escalate_at": alert.escalate_at + wait if wait is not None else None,
        "escalated": alert.escalated + 1,
    }
    return change(alert, Kind.ESCALATED, values, text=str(steps[0].subscription))


def _remind(alert: Alert, now: datetime) -> int:
    interval = alert.rule.reminder_interval(alert.severity)
    due = interval and now + interval
    return change(alert, Kind.REMINDED, {"remind_at": due, "peak": alert.severity})


def _close_disabled() -> None:
    actions.resolve(Alert.objects.filter(OPEN, rule__enabled=False), "", "The rule is disabled.")
