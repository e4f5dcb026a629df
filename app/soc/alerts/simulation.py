"""What a rule would make of a series of reports; nothing is read but the rule, nothing written."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from soc.alerts import life
from soc.alerts.models import Alert, AlertEvent, Rule
from soc.alerts.notices import is_told
from soc.core.severity import Severity

MOST_REPORTS = 1_000

State = Alert.State
Kind = AlertEvent.Kind

_START = datetime(2000, 1, 1, tzinfo=UTC)
_LETTERS = {State.PENDING: "p", State.FIRING: "F", State.FLAPPING: "~", State.RESOLVED: "r"}

LEGEND = "p pending, F firing, ~ flapping, r resolved, . no alert; * mail"


@dataclass(frozen=True)
class Step:
    """One report and what the rule makes of it; ``after`` counts from the first report."""

    after: timedelta
    reported: Severity
    state: State | None
    severity: Severity
    event: Kind | None
    mails: bool


def read_reports(words: Iterable[str]) -> list[Severity]:
    """Read reports such as ``critical``, or ``ok*3`` for three in a row.

    Raises:
        ValueError: a word is no report, or there are none or too many.
    """
    reports: list[Severity] = []
    for word in words:
        name, _, times = word.partition("*")
        if name.upper() not in Severity.names or not re.fullmatch(r"([1-9]\d{0,3})?", times, re.A):
            known = ", ".join(severity.label for severity in Severity)
            raise ValueError(f"{word!r} is no report: write {known}, or ok*3 for three in a row.")
        reports += [Severity[name.upper()]] * int(times or 1)
        if len(reports) > MOST_REPORTS:
            raise ValueError(f"These are more than {MOST_REPORTS:,} reports: write fewer.")
    if not reports:
        raise ValueError("There is no report: write some, such as critical critical ok*3.")
    return reports


def run(rule: Rule, reports: Sequence[Severity], every: timedelta) -> Iterator[Step]:
    """Yield what becomes of each report if one comes in every so often and nothing is silenced."""
    standing = life.Standing()
    for number, reported in enumerate(reports):
        after = every * number
        before, standing = (
            standing,
            life.step(rule, standing, reported, _START + after, quiet=False),
        )
        mails = is_told(standing.event, before.state, standing.state)
        yield Step(after, reported, standing.state, standing.severity, standing.event, mails)
        if standing.state == State.RESOLVED:
            standing = replace(standing, state=None, severity=Severity.OK, event=None)


def strip(steps: Iterable[Step]) -> str:
    """Return the states in one line, a letter each, with a star where a mail goes out."""
    return " ".join(
        (_LETTERS[step.state] if step.state else ".") + "*" * step.mails for step in steps
    )
