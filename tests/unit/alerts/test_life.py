"""The life of an alert, report by report."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soc.alerts import life
from soc.alerts.life import Kind, Standing, State
from soc.alerts.models import Rule
from soc.alerts.notices import is_told
from soc.core.severity import Severity

START = datetime(2026, 3, 1, tzinfo=UTC)
LETTERS = {"o": Severity.OK, "i": Severity.INFO, "w": Severity.WARNING, "c": Severity.CRITICAL}


def lived(rule: Rule, reports: str, *, quiet: str = "", every: int = 3600) -> list[Standing]:
    """Take a report per letter; where ``quiet`` has a q, something keeps the subject down."""
    standing, course = Standing(), []
    for number, letter in enumerate(reports):
        over = standing.state == State.RESOLVED
        before = Standing(changes=standing.changes) if over else standing
        standing = life.step(
            rule,
            before,
            LETTERS[letter],
            START + timedelta(seconds=number * every),
            quiet=quiet[number : number + 1] == "q",
        )
        course.append(standing)
    return course


def states(rule: Rule, reports: str, **options: str | int) -> list[str | None]:
    return [standing.state for standing in lived(rule, reports, **options)]


def events(rule: Rule, reports: str, **options: str | int) -> list[str | None]:
    return [standing.event for standing in lived(rule, reports, **options)]


def test_what_is_well_has_no_alert() -> None:
    assert states(Rule(), "ooo") == [None, None, None]


def test_one_bad_report_fires_and_one_good_resolves_by_default() -> None:
    assert states(Rule(), "occo") == [None, "firing", "firing", "resolved"]
    assert events(Rule(), "occo") == [None, "fired", None, "resolved"]


def test_n_of_m_reports_fire() -> None:
    rule = Rule(needed=3, window=5)
    assert states(rule, "cocoooc")[-1] == "pending"
    assert states(rule, "cococ") == ["pending"] * 4 + ["firing"]
    assert events(rule, "cococ") == ["pending", None, None, None, "fired"]


def test_a_pending_alert_ends_when_the_window_is_clear_again() -> None:
    rule = Rule(needed=2, window=3)
    assert states(rule, "cooo") == ["pending", "pending", "pending", "resolved"]


def test_k_good_reports_in_a_row_resolve() -> None:
    rule = Rule(good_needed=3)
    assert states(rule, "cocoo") == ["firing"] * 5
    assert states(rule, "coococo")[-1] == "firing"
    assert states(rule, "cooo")[-1] == "resolved"


def test_after_its_end_an_alert_needs_all_its_bad_reports_again() -> None:
    rule = Rule(needed=2, window=4)
    assert states(rule, "ccoc") == ["pending", "firing", "resolved", "pending"]


def test_worse_and_better_are_events() -> None:
    assert events(Rule(), "wcw") == ["fired", "worse", "better"]


def test_getting_worse_ends_an_acknowledgement_and_getting_better_does_not() -> None:
    acknowledged = Standing(state=State.ACKNOWLEDGED, severity=Severity.WARNING, recent="1")
    worse = life.step(Rule(), acknowledged, Severity.CRITICAL, START, quiet=False)
    assert (worse.state, worse.event) == ("firing", "worse")
    better = life.step(Rule(), acknowledged, Severity.INFO, START, quiet=False)
    assert (better.state, better.event) == ("acknowledged", "better")


def acknowledged_after(reports: str) -> Standing:
    return replace(lived(Rule(), reports)[-1], state=State.ACKNOWLEDGED)


@pytest.mark.parametrize("back", ["c", "wc", "wiwc", "wcwcwcwc"])
def test_an_acknowledged_alert_that_dips_and_returns_stays_acknowledged(back: str) -> None:
    standing = acknowledged_after("c")
    events = []
    for letter in back:
        standing = life.step(Rule(), standing, LETTERS[letter], START, quiet=False)
        events.append(standing.event)
    assert (standing.state, standing.severity) == (State.ACKNOWLEDGED, Severity.CRITICAL)
    assert Kind.WORSE not in events


def test_what_gets_worse_than_what_was_acknowledged_fires() -> None:
    worse = life.step(Rule(), acknowledged_after("iwi"), Severity.CRITICAL, START, quiet=False)
    assert (worse.state, worse.event) == ("firing", "worse")


def test_a_severity_to_and_fro_flaps_and_makes_few_mails() -> None:
    """Every minute for half an hour; nobody hears of more than it was as severe as before."""
    course = lived(Rule(), "wc" * 15, every=60)
    told = [
        standing.event
        for before, standing in pairwise([Standing(), *course])
        if is_told(standing.event, before.state, standing.state)
    ]
    assert told == ["fired", "worse", "flapping"]
    assert course[-1].state == "flapping"
    calm = life.calm(Rule(), course[-1], START + timedelta(hours=2))
    assert (calm.state, calm.event, calm.severity) == ("firing", "steady", Severity.CRITICAL)


@pytest.mark.parametrize("reports", ["iwc", "wwwc", "ccccc"])
def test_what_only_gets_worse_is_no_flapping(reports: str) -> None:
    assert "flapping" not in states(Rule(flap_changes=2), reports, every=1)


def test_flapping_ends_as_severe_as_the_last_report() -> None:
    course = lived(Rule(), "wcwcwwww", every=60)
    assert (course[-1].state, course[-1].severity) == ("flapping", Severity.CRITICAL)
    calm = life.calm(Rule(), course[-1], START + timedelta(hours=2))
    assert (calm.state, calm.severity, calm.peak) == ("firing", Severity.WARNING, Severity.WARNING)
    again = life.step(Rule(), calm, Severity.CRITICAL, START + timedelta(hours=3), quiet=False)
    assert again.event == "worse", "its readers were told of a warning meanwhile"


def test_the_worst_of_the_waiting_reports_counts() -> None:
    assert lived(Rule(needed=2, window=2), "cw")[-1].severity == Severity.CRITICAL


def test_five_changes_in_half_an_hour_are_flapping_until_it_is_calm() -> None:
    rule = Rule()
    course = lived(rule, "cococococ", every=60)
    assert [standing.state for standing in course[:5]] == [
        *("firing", "resolved", "firing", "resolved", "flapping")
    ]
    assert {standing.state for standing in course[4:]} == {"flapping"}
    assert [standing.event for standing in course].count(Kind.FLAPPING) == 1
    last = START + timedelta(minutes=8)
    assert life.calm(rule, course[-1], last + timedelta(minutes=29)) == course[-1]
    calm = life.calm(rule, course[-1], last + timedelta(minutes=31))
    assert (calm.state, calm.event) == ("firing", "steady")


def test_flapping_ends_resolved_when_all_is_well() -> None:
    course = lived(Rule(), "cococo", every=60)
    assert course[-1].state == "flapping"
    late = START + timedelta(hours=1)
    assert life.step(Rule(), course[-1], Severity.OK, late, quiet=False).state == "resolved"


def test_slow_changes_are_no_flapping() -> None:
    assert "flapping" not in states(Rule(), "co" * 10, every=600)


def test_a_rule_may_never_flap() -> None:
    assert "flapping" not in states(Rule(flap_changes=0), "co" * 10, every=1)


def test_what_is_quiet_is_suppressed_and_fires_when_the_quiet_is_over() -> None:
    assert states(Rule(), "cccc", quiet=" qq ") == ["firing", "suppressed", "suppressed", "firing"]
    assert events(Rule(), "ccc", quiet="qq ") == ["suppressed", None, "fired"]
    assert states(Rule(), "cco", quiet="qqq")[-1] == "resolved"


def test_an_acknowledged_alert_stays_acknowledged_when_it_gets_quiet() -> None:
    acknowledged = Standing(state=State.ACKNOWLEDGED, severity=Severity.WARNING, recent="1")
    after = life.step(Rule(), acknowledged, Severity.WARNING, START, quiet=True)
    assert (after.state, after.event) == ("acknowledged", None)


RULES = st.builds(
    lambda window, needed, good_needed, flap_changes: Rule(
        window=window,
        needed=min(needed, window),
        good_needed=good_needed,
        flap_changes=flap_changes,
    ),
    st.integers(1, 5), st.integers(1, 5), st.integers(1, 4), st.sampled_from([0, 3, 5]),
)  # fmt: skip


@given(RULES, st.text("oiwc", max_size=60), st.text(" q", max_size=60), st.integers(1, 2000))
def test_in_any_course_of_events_an_alert_keeps_its_promises(
    rule: Rule, reports: str, quiet: str, every: int
) -> None:
    course = lived(rule, reports, quiet=quiet, every=every)
    for number, standing in enumerate(course):
        seen = reports[: number + 1]
        bad_in_window = sum(letter != "o" for letter in seen[-rule.window :])
        if standing.event == Kind.FIRED and number and course[number - 1].state != "suppressed":
            assert bad_in_window >= rule.needed
        if standing.event == Kind.RESOLVED:
            assert seen.endswith("o")
        if standing.state not in (None, State.RESOLVED):
            assert standing.severity > Severity.OK
        assert len(standing.recent) <= rule.window
        assert (standing.state == State.RESOLVED) == (standing.event == Kind.RESOLVED)
    if rule.flap_changes == 0:
        assert State.FLAPPING not in {standing.state for standing in course}


@pytest.mark.parametrize("state", [State.FIRING, State.ACKNOWLEDGED, State.SUPPRESSED])
def test_good_reports_end_every_open_alert(state: State) -> None:
    before = Standing(state=state, severity=Severity.CRITICAL, recent="1")
    assert life.step(Rule(), before, Severity.OK, START, quiet=True).state == "resolved"
