"""The life of an alert as a pure function: what is known, one report, what follows."""

from dataclasses import dataclass, replace
from datetime import datetime

from soc.alerts.models import Alert, AlertEvent, Rule
from soc.core.severity import Severity

State = Alert.State
Kind = AlertEvent.Kind


@dataclass(frozen=True)
class Standing:
    """What is known about a subject; ``state`` is its open alert's, None without one.

    ``recent`` holds the last reports, bad as 1 and good as 0; ``changes`` the Unix times of the
    last changes between good and bad, and of the severity while it fires; ``peak`` is the worst
    severity since its readers last heard how severe it is; ``reported`` the last one reported;
    ``acknowledged`` whether a person knows it as severe as it is, also while it flaps; ``event``
    what the last report brought about.
    """

    state: State | None = None
    severity: Severity = Severity.OK
    recent: str = ""
    good: int = 0
    changes: tuple[float, ...] = ()
    peak: Severity = Severity.OK
    reported: Severity = Severity.OK
    acknowledged: bool = False
    event: Kind | None = None


def step(
    rule: Rule, before: Standing, reported: Severity, at: datetime, *, quiet: bool
) -> Standing:
    """Return what becomes of a subject when its condition is reported.

    ``quiet`` says that a silence or a failing parent keeps the subject's alerts down.
    """
    bad = reported > Severity.OK
    now = replace(
        before,
        recent=(before.recent + "01"[bad])[-rule.window :],
        good=0 if bad else min(before.good + 1, rule.good_needed),
        changes=_lately(rule, before.changes, at),
        peak=max(before.peak, before.severity),
        reported=reported,
        event=None,
    )
    match before.state:
        case None | State.PENDING:
            return _waiting(rule, now, reported, at, quiet=quiet)
        case State.FLAPPING:
            return _flapping(before, now, reported, at, quiet=quiet)
        case _ if now.good >= rule.good_needed:
            return _over(rule, now, at, quiet=quiet)
    return _still(rule, now, reported, at, quiet=quiet) if bad else now


def calm(rule: Rule, before: Standing, at: datetime) -> Standing:
    """Return what becomes of a flapping subject of which nothing is heard."""
    changes = _lately(rule, before.changes, at)
    return before if changes else _steady(replace(before, changes=(), event=None))


def _lately(rule: Rule, changes: tuple[float, ...], at: datetime) -> tuple[float, ...]:
    oldest = (at - rule.flap_span).timestamp()
    return tuple(change for change in changes if change > oldest)


def _flaps(rule: Rule, changes: tuple[float, ...]) -> bool:
    return 0 < rule.flap_changes <= len(changes)


def _waiting(
    rule: Rule, now: Standing, reported: Severity, at: datetime, *, quiet: bool
) -> Standing:
    """Go on from no alert, or from one that waits for more bad reports."""
    if reported == Severity.OK:
        over = now.state is not None and "1" not in now.recent
        return _closed(now) if over else now
    severity = max(reported, now.severity)
    if now.recent.count("1") < rule.needed:
        event = None if now.state else Kind.PENDING
        return replace(now, state=State.PENDING, severity=severity, event=event)
    changes = (*now.changes, at.timestamp())
    opened = replace(now, severity=severity, peak=severity, changes=changes)
    if quiet:
        return replace(opened, state=State.SUPPRESSED, event=Kind.SUPPRESSED)
    if _flaps(rule, opened.changes):
        return replace(opened, state=State.FLAPPING, event=Kind.FLAPPING)
    return replace(opened, state=State.FIRING, event=Kind.FIRED)


def _still(rule: Rule, now: Standing, reported: Severity, at: datetime, *, quiet: bool) -> Standing:
    """Go on with a problem that goes on."""
    state = now.state
    # What somebody was notified of or took note of was less than what is worse. What has been as
    # severe before, and got better meanwhile, is no news.
    is_worse = reported > now.peak
    if quiet and (state == State.FIRING or (state == State.ACKNOWLEDGED and is_worse)):
        return _known(replace(now, state=State.SUPPRESSED, event=Kind.SUPPRESSED))
    if state == State.SUPPRESSED and not quiet:
        return _known(replace(now, state=State.FIRING, event=Kind.FIRED))
    if reported == now.severity:
        return now
    if state == State.FIRING:
        now = replace(now, changes=(*now.changes, at.timestamp()))
    if is_worse:
        state = State.FIRING if state == State.ACKNOWLEDGED else state
        return _known(replace(now, state=state, event=Kind.WORSE))
    if state == State.FIRING and _flaps(rule, now.changes):
        return replace(
            now, state=State.FLAPPING, severity=max(reported, now.severity), event=Kind.FLAPPING
        )
    better = reported < now.severity
    return replace(now, severity=reported, event=Kind.BETTER if better else Kind.RETURNED)


def _known(now: Standing) -> Standing:
    """Return a subject whose alert stands for what was reported last, and says so."""
    return replace(now, severity=now.reported, peak=now.reported, acknowledged=False)


def _over(rule: Rule, now: Standing, at: datetime, *, quiet: bool) -> Standing:
    """Go on from a problem that has ended, or that comes and goes."""
    changes = (*now.changes, at.timestamp())
    if _flaps(rule, changes) and not quiet:
        return replace(now, state=State.FLAPPING, changes=changes, event=Kind.FLAPPING)
    return _closed(replace(now, changes=changes))


def _flapping(
    before: Standing, now: Standing, reported: Severity, at: datetime, *, quiet: bool
) -> Standing:
    if reported != before.reported:
        now = replace(now, changes=(*now.changes, at.timestamp()))
    if now.acknowledged and reported > now.peak:
        # Less was acknowledged.
        now = replace(now, acknowledged=False, event=Kind.WORSE)
    if quiet and not now.acknowledged:
        return replace(now, state=State.SUPPRESSED, event=Kind.SUPPRESSED)
    if not now.changes:
        return _steady(now)
    return replace(now, severity=max(reported, now.severity))


def _steady(now: Standing) -> Standing:
    """End flapping the way the last report was; what a person knows of is no news."""
    if now.reported == Severity.OK:
        return _closed(now)
    if now.acknowledged:
        return replace(now, state=State.ACKNOWLEDGED, severity=now.reported, event=Kind.STEADY)
    return _known(replace(now, state=State.FIRING, event=Kind.STEADY))


def _closed(now: Standing) -> Standing:
    return Standing(state=State.RESOLVED, severity=now.severity, changes=now.changes,
                    reported=now.reported, event=Kind.RESOLVED)  # fmt: skip
