"""What operators do with alerts, one or two thousand at a time."""

from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from soc.alerts.changes import ending, record
from soc.alerts.models import OPEN, Alert, AlertEvent, Silence, Subject
from soc.common.batches import batched
from soc.common.times import local
from soc.notify import outbox

AT_ONCE = 200
"""Alerts that one transaction locks."""

State = Alert.State
Kind = AlertEvent.Kind

LONGEST_ACKNOWLEDGEMENT = timedelta(days=7)
"""For how long an acknowledgement with an end may hold."""

ACKNOWLEDGEABLE = Q(state__in=[State.FIRING, State.FLAPPING]) | Q(
    state=State.ACKNOWLEDGED, acknowledged_until__isnull=False
)
"""The alerts that can be acknowledged; one whose acknowledgement expires can be again."""


def acknowledge(
    alerts: QuerySet[Alert], by: str, note: str = "", lasting: timedelta | None = None
) -> int:
    """Acknowledge the alerts that can be, until they are over or for a time; return how many.

    A flapping alert goes on flapping: it makes no noise as it is.
    """
    count = 0
    now = timezone.now()
    until = now + lasting if lasting else None
    text = "\n".join(filter(None, (note, f"Until {local(until)}" if until else "")))
    for keys in _portions(alerts.filter(ACKNOWLEDGEABLE)):
        with transaction.atomic():
            for before, after in (
                ([State.FIRING, State.ACKNOWLEDGED], State.ACKNOWLEDGED),
                ([State.FLAPPING], State.FLAPPING),
            ):
                locked = [
                    alert
                    for alert in _locked(keys, before)
                    # Somebody else may have got on since the keys were read.
                    if alert.state != State.ACKNOWLEDGED or alert.acknowledged_until
                ]
                _advance(
                    *(locked, Kind.ACKNOWLEDGED, after, by, text),
                    acknowledged_at=now,
                    acknowledged_by=by,
                    acknowledged_until=until,
                    note=note,
                )
                count += len(locked)
    return count


def resolve(alerts: QuerySet[Alert], by: str, note: str = "") -> int:
    """Resolve open alerts, and return how many; the next bad reports open new ones."""
    count = 0
    for keys in _portions(alerts.filter(OPEN)):
        with transaction.atomic():
            # The subjects first, as everybody locks them.
            subjects = Subject.objects.filter(alert__in=keys).select_for_update().order_by("pk")
            subject_keys = [subject.pk for subject in subjects]
            locked = _locked(keys, [state for state in State if state != State.RESOLVED])
            Subject.objects.filter(pk__in=subject_keys).update(
                alert=None, recent="", good=0, revision=F("revision") + 1
            )
            values = ending()
            Alert.objects.filter(pk__in=[alert.pk for alert in locked]).update(**values)
            for alert in locked:
                before, alert.state = alert.state, values["state"]
                alert.resolved_at = values["resolved_at"]
                record(alert, Kind.RESOLVED, before=before, by=by, text=note)
            count += len(locked)
    return count


def retire(application: str, subject: str, rules: Collection[str] | None = None) -> int:
    """Resolve the alerts of a subject that is not watched any more, of some rules or of all.

    Returns the number of alerts.
    """
    alerts = Alert.objects.filter(rule__application=application, subject__name=subject)
    if rules is not None:
        alerts = alerts.filter(rule__name__in=rules)
    return resolve(alerts, "", "It is no longer watched.")


def add_note(alert: Alert, by: str, note: str) -> None:
    """Add a person's words to an alert's timeline."""
    with transaction.atomic():
        Alert.objects.filter(pk=alert.pk).update(note=note)
        record(alert, Kind.NOTED, before=alert.state, by=by, text=note)


def silence(alerts: QuerySet[Alert], by: str, comment: str, duration: timedelta) -> int:
    """Silence the subjects of alerts for a time, from now on; return how many."""
    now = timezone.now()
    keys = list(alerts.values_list("pk", flat=True))
    subjects = Subject.objects.filter(alerts__in=keys).distinct().select_related("rule")
    new = [
        Silence(
            comment=comment,
            created_by=by,
            application=subject.rule.application,
            rule=subject.rule,
            site=subject.site,
            subject=_literal(subject.name),
            starts_at=now,
            ends_at=now + duration,
        )
        for subject in subjects
    ]
    with transaction.atomic():
        Silence.objects.bulk_create(new)
        why = str(new[0])[:200] if new else ""
        for portion in _portions(Alert.objects.filter(pk__in=keys, state=State.FIRING)):
            locked = _locked(portion, [State.FIRING])
            _advance(*(locked, Kind.SUPPRESSED, State.SUPPRESSED, by, why), suppressed_by=why)
            outbox.withdraw(alert.topic for alert in locked)
    return len(new)


def _literal(name: str) -> str:
    """Return the pattern that matches a name and nothing else."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _portions(alerts: QuerySet[Alert]) -> Iterator[Sequence[int]]:
    return batched(list(alerts.order_by("pk").values_list("pk", flat=True)), AT_ONCE)


def _locked(keys: Sequence[int], states: list[State]) -> list[Alert]:
    """Lock the alerts that are still in one of the states."""
    # Joined, the rules would be locked too, and everybody would wait for them.
    alerts = Alert.objects.filter(pk__in=keys, state__in=states).order_by("pk")
    return list(alerts.prefetch_related("rule", "subject").select_for_update())


def _advance(
    locked: Sequence[Alert], kind: Kind, after: State, by: str, text: str, **values: object
) -> None:
    """Bring locked alerts into a state in which nobody is reminded of them."""
    Alert.objects.filter(pk__in=[alert.pk for alert in locked]).update(
        state=after, remind_at=None, escalate_at=None, **values
    )
    AlertEvent.objects.bulk_create(
        AlertEvent(
            alert=alert,
            kind=kind,
            before=alert.state,
            after=after,
            severity=alert.severity,
            by=by,
            text=text,
        )
        for alert in locked
    )
