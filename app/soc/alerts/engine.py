"""Takes reports of conditions and carries alerts through their life.

A change is written by one conditional update of the subject's row. Of two workers that report at
once one succeeds; the other reads again and finds what the first has made of the subject.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from soc.alerts import life
from soc.alerts.changes import UNACKNOWLEDGED, Outrun, change, ending, record, timers, write
from soc.alerts.conditions import MOST_AHEAD, Condition, cleaned
from soc.alerts.models import Alert, AlertEvent, Rule, Subject
from soc.alerts.quiet import Quiet
from soc.common.deadlocks import again_after_deadlock
from soc.core.severity import Severity

MOST_AT_ONCE = 500
"""Conditions that are read, and written if nothing has changed, in one statement each."""

State = Alert.State
Kind = AlertEvent.Kind

_NOT_NEEDED = (
    *("rule__description", "rule__runbook", "alert__facts", "alert__note", "alert__summary"),
    *("alert__link", "alert__acknowledged_by", "alert__site"),
)
"""Columns of a subject's rule and alert that only a changed alert needs."""

_LOUD = {Kind.FIRED, Kind.WORSE, Kind.STEADY, Kind.FLAPPING}
"""Events that a silence or a failing parent keeps from happening."""

_RENEWS = {*_LOUD, Kind.SUPPRESSED}
"""Events after which an alert stands for what was reported last."""


_ACKNOWLEDGEABLE = (State.ACKNOWLEDGED, State.FLAPPING)
"""States in which a person's acknowledgement holds."""


class Outcome(StrEnum):
    """What became of a report that changed no alert; the others are named by their event."""

    UNCHANGED = "unchanged"
    LATE = "late"
    STALE = "stale"
    DISABLED = "disabled"


@dataclass(frozen=True)
class Result:
    """What became of one report: an ``Outcome`` or the kind of the event, and the new mails."""

    outcome: str
    mails: int = 0


@dataclass(frozen=True)
class _Known:
    """What becomes known of a subject without an alert; ``revision`` is the one that was read."""

    revision: int
    recent: str
    good: int
    changes: tuple[float, ...]
    severity: Severity
    observed_at: datetime
    site: str
    parent: str


_News = dict[_Known, list[Subject]]
"""Subjects without an alert by what becomes known of them."""


class UnknownRule(LookupError):
    """A condition names a rule that does not exist."""


def report(conditions: Iterable[Condition]) -> list[Result]:
    """Report the conditions of subjects, and return what became of each in the same order.

    A condition that is not newer than the last one of its subject changes nothing, so that a task
    may report again what it reported before it died. Nothing is sent to the broker: anyone who runs
    in a worker wakes the mail's worker for ``mails`` that are new.

    Raises:
        UnknownRule: a rule does not exist; nothing was reported.
        ValueError: a condition has no subject, or a time without a zone; nothing was reported.
    """
    now = timezone.now()
    clean = [cleaned(condition, now) for condition in conditions]
    _refuse_unknown_rules(clean)
    return [result for chunk in _chunks(clean) for result in _report(chunk, now)]


def _refuse_unknown_rules(conditions: Iterable[Condition]) -> None:
    named = {(condition.application, condition.rule) for condition in conditions}
    if len(named) == 1:
        # The usual case finds its rule with its subject.
        return
    if unknown := named - set(Rule.objects.values_list("application", "name")):
        raise _unknown(*unknown.pop())


def _unknown(application: str, rule: str) -> UnknownRule:
    known = ", ".join(map(str, Rule.objects.all()))
    return UnknownRule(f"There is no rule {application}/{rule}; the rules are {known}.")


def _chunks(conditions: Iterable[Condition]) -> Iterator[dict[str, Condition]]:
    """Yield conditions by their subjects' fingerprints, each subject once at a time."""
    chunk: dict[str, Condition] = {}
    for condition in conditions:
        if len(chunk) == MOST_AT_ONCE or condition.fingerprint in chunk:
            yield chunk
            chunk = {}
        chunk[condition.fingerprint] = condition
    if chunk:
        yield chunk


@again_after_deadlock
def _report(chunk: Mapping[str, Condition], now: datetime) -> list[Result]:
    subjects = _subjects(chunk)
    quiet = Quiet(now)
    results, same = {}, []
    news: _News = defaultdict(list)
    # In one order in every worker, so that two never wait for each other.
    for key in sorted(chunk, key=lambda key: subjects[key].pk):
        results[key], touched = _take(subjects[key], chunk[key], quiet, news)
        if touched:
            same.append((touched, chunk[key]))
    for subject in _note(news):
        key = subject.fingerprint
        results[key], touched = _take(subject, chunk[key], quiet)
        if touched:
            same.append((touched, chunk[key]))
    _touch(same)
    return [results[key] for key in chunk]


def _subjects(chunk: Mapping[str, Condition]) -> dict[str, Subject]:
    """Return the subjects of conditions by their fingerprints, new ones included."""
    found = _read(chunk)
    if missing := [condition for key, condition in chunk.items() if key not in found]:
        rules = {(rule.application, rule.name): rule for rule in Rule.objects.all()}
        for condition in missing:
            if (condition.application, condition.rule) not in rules:
                raise _unknown(condition.application, condition.rule)
        new = [
            Subject(
                rule=rules[condition.application, condition.rule],
                name=condition.subject,
                fingerprint=condition.fingerprint,
                site=condition.site,
                parent=condition.parent_fingerprint,
            )
            for condition in missing
        ]
        Subject.objects.bulk_create(new, ignore_conflicts=True)
        found |= _read([condition.fingerprint for condition in missing])
    return found


def _read(fingerprints: Iterable[str]) -> dict[str, Subject]:
    subjects = Subject.objects.filter(fingerprint__in=list(fingerprints))
    joined = subjects.select_related("rule", "alert").defer(*_NOT_NEEDED)
    return {subject.fingerprint: subject for subject in joined}


def _take(
    subject: Subject, condition: Condition, quiet: Quiet, news: _News | None = None
) -> tuple[Result, Subject | None]:
    """Take one report; return the subject too if all there is to write is that it was seen.

    A change without an alert goes to ``news``, if given, to be written with others.
    """
    while True:
        if skipped := _skipped(subject, condition, quiet.now):
            return Result(skipped), None
        before = standing(subject)
        after, why = _step(subject, before, condition, quiet)
        if after == before and _is_as_known(subject, condition):
            return Result(Outcome.UNCHANGED), subject
        if news is not None and before.state is None and after.event is None:
            news[_known(subject, after, condition)].append(subject)
            return Result(Outcome.UNCHANGED), None
        try:
            mails = _apply(subject, before, after, condition, why)
        except Outrun:
            # Somebody else got on: this ends as soon as nobody does.
            subject = _read([condition.fingerprint])[condition.fingerprint]
        else:
            return Result(after.event or Outcome.UNCHANGED, mails), None


def _known(subject: Subject, after: life.Standing, condition: Condition) -> _Known:
    return _Known(
        revision=subject.revision,
        recent=after.recent,
        good=after.good,
        changes=after.changes,
        severity=condition.severity,
        observed_at=condition.observed_at,
        site=condition.site,
        parent=condition.parent_fingerprint,
    )


def _note(news: _News) -> Iterator[Subject]:
    """Write what is known of subjects without an alert, in one statement for all of the same news.

    Yields:
        The subjects of which nothing was written, because at least one of those with the same news
        was no longer as it was read.
    """
    for known, subjects in news.items():
        unchanged = Subject.objects.filter(
            pk__in=[subject.pk for subject in subjects], revision=known.revision
        )
        values = asdict(known) | {"changes": list(known.changes), "revision": known.revision + 1}
        try:
            # One statement alone needs no transaction.
            with transaction.atomic() if len(subjects) > 1 else nullcontext():
                if unchanged.update(**values) < len(subjects):
                    raise Outrun
        except Outrun:
            yield from subjects


def _skipped(subject: Subject, condition: Condition, now: datetime) -> Outcome | None:
    """Return why a report makes no difference to alerts, after keeping what is worth keeping."""
    last = subject.observed_at
    # What a clock that was ahead has left behind must not outdate what comes after it.
    if last is not None and condition.observed_at <= last <= now + MOST_AHEAD:
        return Outcome.LATE
    if not subject.rule.enabled:
        return Outcome.DISABLED
    if condition.severity == Severity.OK:
        return None
    if now - condition.observed_at <= timedelta(seconds=subject.rule.stale_after):
        return None
    Subject.objects.filter(pk=subject.pk, revision=subject.revision).update(
        severity=condition.severity, observed_at=condition.observed_at
    )
    return Outcome.STALE


def _is_as_known(subject: Subject, condition: Condition) -> bool:
    known = subject.severity, subject.site, subject.parent
    return known == (condition.severity, condition.site, condition.parent_fingerprint)


def standing(subject: Subject) -> life.Standing:
    """Return what is known about a subject."""
    alert = subject.alert if subject.alert and subject.alert.resolved_at is None else None
    return life.Standing(
        state=State(alert.state) if alert else None,
        severity=Severity(alert.severity) if alert else Severity.OK,
        recent=subject.recent,
        good=subject.good,
        changes=tuple(subject.changes),
        peak=Severity(alert.peak) if alert else Severity.OK,
        reported=Severity(subject.severity),
        acknowledged=alert is not None
        and alert.state in _ACKNOWLEDGEABLE
        and alert.acknowledged_at is not None,
    )


def _touch(same: Sequence[tuple[Subject, Condition]]) -> None:
    """Note that subjects were seen as they were known."""
    seen = [
        (subject.alert, condition)
        for subject, condition in same
        if subject.alert and condition.severity > Severity.OK
    ]
    moments = {condition.observed_at for _, condition in same}
    if len(moments) == 1:
        keys = [subject.pk for subject, _ in same]
        Subject.objects.filter(pk__in=keys).update(observed_at=moments.pop())
    elif moments:
        for subject, condition in same:
            subject.observed_at = condition.observed_at
        Subject.objects.bulk_update([subject for subject, _ in same], ["observed_at"])
    if len(seen) == 1:
        # What a worker reports after each probe: half the price of the general case.
        ((alert, condition),) = seen
        Alert.objects.filter(pk=alert.pk).update(**_seen(condition))
    elif seen:
        for alert, condition in seen:
            for name, value in _seen(condition).items():
                setattr(alert, name, value)
        Alert.objects.bulk_update([alert for alert, _ in seen], list(_seen(seen[0][1])))


def _seen(condition: Condition) -> dict[str, object]:
    """Return the values of an alert that was reported once more."""
    return {
        "last_seen_at": condition.observed_at,
        "summary": condition.summary,
        "link": condition.link,
        "count": F("count") + 1,
    }


def _step(
    subject: Subject, before: life.Standing, condition: Condition, quiet: Quiet
) -> tuple[life.Standing, str]:
    """Return what the report makes of the subject, and what keeps it quiet."""
    severity, at = condition.severity, condition.observed_at
    after = life.step(subject.rule, before, severity, at, quiet=False)
    if after.event in _LOUD and (why := quiet.over_report(subject, condition)):
        return life.step(subject.rule, before, severity, at, quiet=True), why
    return after, ""


def _apply(
    subject: Subject, before: life.Standing, after: life.Standing, condition: Condition, why: str
) -> int:
    """Write what a report makes of a subject and its alert; return how many mails are new.

    Raises:
        Outrun: the subject or its alert has changed since it was read; nothing is written.
    """
    with transaction.atomic():
        settle(
            subject,
            after,
            severity=condition.severity,
            observed_at=condition.observed_at,
            site=condition.site,
            parent=condition.parent_fingerprint,
        )
        alert = subject.alert
        if before.state is None or alert is None:
            return _open(subject, after, condition, why)
        alert.rule, alert.subject = subject.rule, subject
        return _go_on(alert, after, condition, why)


def settle(subject: Subject, after: life.Standing, **values: object) -> None:
    """Write what is known about a subject, if it is still as it was read.

    Raises:
        Outrun: it is not.
    """
    if after.state == State.RESOLVED:
        values["alert"] = None
    unchanged = Subject.objects.filter(pk=subject.pk, revision=subject.revision)
    if not unchanged.update(
        recent=after.recent,
        good=after.good,
        changes=list(after.changes),
        revision=F("revision") + 1,
        **values,
    ):
        raise Outrun


def _open(subject: Subject, after: life.Standing, condition: Condition, why: str) -> int:
    if after.state is None or after.event is None:
        return 0
    now = timezone.now()
    alert = Alert.objects.create(
        rule=subject.rule,
        subject=subject,
        open_key=subject.fingerprint,
        site=condition.site,
        severity=after.severity,
        peak=after.peak,
        state=after.state,
        summary=condition.summary,
        facts=condition.facts,
        link=condition.link,
        opened_at=condition.observed_at,
        last_seen_at=condition.observed_at,
        suppressed_by=why,
        **timers(subject.rule, after.state, after.severity, now),
    )
    Subject.objects.filter(pk=subject.pk).update(alert=alert)
    return record(alert, after.event, before="", observed_at=condition.observed_at, text=why)


def _go_on(alert: Alert, after: life.Standing, condition: Condition, why: str) -> int:
    values: dict[str, object] = {
        "state": after.state,
        "severity": after.severity,
        "peak": after.peak,
    }
    if condition.severity > Severity.OK:
        values |= _seen(condition)
    if after.event in _RENEWS:
        values |= {"facts": condition.facts, "suppressed_by": why}
        values |= timers(alert.rule, after.state, after.severity, timezone.now())
        if not after.acknowledged:
            values |= UNACKNOWLEDGED
    if after.event == Kind.RESOLVED:
        values |= ending()
    if after.event is None:
        write(alert, **values)
        return 0
    return change(alert, after.event, values, observed_at=condition.observed_at, text=why)
