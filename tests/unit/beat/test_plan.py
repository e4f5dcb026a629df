"""What is due when: a year of any schedule, restarts, missed runs, a clock that is set."""

from dataclasses import dataclass
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st
from wallclock import END, START, ZONES

from soc.beat.plan import SET_BACK, Entry, Plan, Run
from soc.beat.timing import SECOND, Clocked, Crontab, Interval, Started, Timing, moment

FIRST, LAST = moment(START), moment(END)
MINUTE, HOUR = 60 * SECOND, 3600 * SECOND
HORIZON = 2 * SECOND


def times(first: int, last: int) -> st.SearchStrategy[str]:
    some = st.sets(st.integers(first, last), min_size=1, max_size=3)
    return some.map(lambda numbers: ",".join(map(str, numbers)))


crontabs = st.builds(
    Crontab,
    minute=st.one_of(times(0, 59), st.just("*/30")),
    hour=st.one_of(times(0, 23), st.just("*"), st.just("*/2")),
    day_of_week=st.one_of(times(0, 6), st.just("*")),
    day_of_month=st.one_of(times(1, 28), st.just("*")),
    month_of_year=st.just("*"),
    zone=st.sampled_from([ZoneInfo(name) for name in ZONES]),
)
moments = st.integers(FIRST, LAST)
intervals = st.builds(Interval, every=st.integers(HOUR // 2, 400 * 24 * HOUR), anchor=moments)
timings: st.SearchStrategy[Timing] = st.one_of(
    crontabs,
    intervals,
    st.builds(Clocked, moments),
    st.builds(Started, crontabs, moments),
)


@dataclass
class Stop:
    """Beat is not there for a while: killed, or waiting for a lease to end."""

    at: int
    seconds: int


stops = st.lists(st.builds(Stop, moments, st.integers(0, 3 * 3600)), max_size=8)


def all_firings(timing: Timing) -> list[int]:
    found = []
    at = timing.after(FIRST)
    while at is not None and at < LAST:
        found.append(at)
        at = timing.after(at)
    return found


def live_through_a_year(timing: Timing, away: list[tuple[int, int]], **choices: bool) -> list[int]:
    """Return the due times of the runs; what a beat recorded is all that its successor knows."""
    ran: list[int] = []
    last, floor, began = None, 0, FIRST
    for gone, back in [*away, (LAST, LAST)]:
        plan = Plan()
        plan.add(Entry(1, timing, created=FIRST, last=last, **choices), began, floor)
        now = began
        while (due := plan.next_due()) is not None:
            now = max(now, due - HORIZON)
            if now >= gone:
                break
            for run in plan.take(now, HORIZON):
                if run.due >= LAST:
                    return ran
                ran.append(run.due)
                last = run.due
                if run.final:
                    return ran
        floor = max(floor, min(now, gone) + HORIZON) if now < gone else floor
        began = back
    return ran


def periods(stops: list[Stop]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for stop in sorted(stops, key=lambda stop: stop.at):
        begin, end = stop.at, stop.at + stop.seconds * SECOND
        if end < LAST and (not found or begin > found[-1][1] + 2 * HORIZON):
            found.append((begin, end))
    return found


@settings(max_examples=25, deadline=None)
@given(timing=timings)
def test_a_year_of_any_schedule_runs_exactly_when_it_says(timing: Timing) -> None:
    assert live_through_a_year(timing, []) == all_firings(timing)


@settings(max_examples=25, deadline=None)
@given(timing=st.one_of(crontabs, intervals), stops=stops, catch_up=st.booleans())
def test_restarts_double_nothing_and_lose_what_passed_meanwhile(
    timing: Timing, stops: list[Stop], catch_up: bool
) -> None:
    away = periods(stops)
    ran = live_through_a_year(timing, away, catch_up=catch_up)
    assert ran == sorted(set(ran))
    firings = set(all_firings(timing))
    assert set(ran) <= firings
    for missing in firings - set(ran):
        assert any(gone <= missing <= back for gone, back in away), missing


@given(timing=timings)
@settings(max_examples=30, deadline=None)
def test_a_one_off_runs_once(timing: Timing) -> None:
    assert live_through_a_year(timing, [], once=True) == all_firings(timing)[:1]


def entry(every: int = MINUTE, **values: object) -> Entry:
    return Entry(1, Interval(every, FIRST), created=FIRST, **values)


def dues(runs: list[Run]) -> list[int]:
    return [run.due for run in runs]


def test_a_short_absence_costs_no_run() -> None:
    plan = Plan()
    plan.add(entry(HOUR, last=FIRST), FIRST + HOUR + 20 * SECOND)
    assert dues(plan.take(FIRST + HOUR + 20 * SECOND, 0)) == [FIRST + HOUR]


def test_many_runs_that_passed_make_one() -> None:
    plan = Plan()
    plan.add(entry(SECOND, last=FIRST), FIRST)
    assert dues(plan.take(FIRST + 30 * SECOND, 0)) == [FIRST + 30 * SECOND]
    assert plan.next_due() == FIRST + 31 * SECOND


def test_a_missed_run_is_skipped_and_the_phase_kept() -> None:
    plan = Plan()
    plan.add(entry(HOUR, last=FIRST), FIRST)
    assert plan.take(FIRST + HOUR + 2 * MINUTE, 0) == []
    assert plan.next_due() == FIRST + 2 * HOUR


def test_missed_runs_are_made_up_for_by_one_where_asked() -> None:
    plan = Plan()
    plan.add(entry(HOUR, last=FIRST, catch_up=True), FIRST)
    assert len(plan.take(FIRST + 5 * HOUR + 2 * MINUTE, 0)) == 1
    assert plan.next_due() == FIRST + 6 * HOUR


def test_a_one_off_is_never_too_late() -> None:
    plan = Plan()
    plan.add(Entry(1, Clocked(FIRST), created=0, once=True), FIRST)
    (run,) = plan.take(FIRST + 48 * HOUR, 0)
    assert (run.due, run.final) == (FIRST, True)


def test_a_one_off_that_has_run_ends_without_another() -> None:
    plan = Plan()
    plan.add(entry(once=True, finished=True), FIRST)
    (run,) = plan.take(FIRST, 0)
    assert run.silent
    assert run.final


def test_what_has_expired_ends_without_a_run() -> None:
    plan = Plan()
    plan.add(entry(until=FIRST + 90 * SECOND), FIRST)
    assert dues(plan.take(FIRST + MINUTE, 0)) == [FIRST + MINUTE]
    (run,) = plan.take(FIRST + 2 * MINUTE, 0)
    assert run.silent
    assert plan.next_due() is None


def test_runs_that_are_recorded_are_not_taken_again_whatever_the_row_says() -> None:
    plan = Plan()
    plan.add(entry(last=FIRST), FIRST + 130 * SECOND, floor=FIRST + 2 * MINUTE)
    assert plan.next_due() == FIRST + 3 * MINUTE


def test_at_least_once_trusts_its_own_record_only() -> None:
    plan = Plan()
    plan.add(entry(last=FIRST, early=False), FIRST + 130 * SECOND, floor=FIRST + 2 * MINUTE)
    assert dues(plan.take(FIRST + 130 * SECOND, 0)) == [FIRST + 2 * MINUTE]


def test_a_replaced_entry_leaves_nothing_behind() -> None:
    plan = Plan()
    plan.add(entry(MINUTE), FIRST)
    plan.add(entry(HOUR), FIRST)
    assert plan.take(FIRST + MINUTE, 0) == []
    plan.remove(1)
    assert plan.next_due() is None


def test_edits_without_end_do_not_grow_the_heap() -> None:
    plan = Plan()
    for _ in range(10_000):
        plan.add(entry(HOUR), FIRST)
    assert len(plan._heap) < 2000


def test_a_clock_put_forward_makes_no_burst() -> None:
    plan = Plan()
    plan.add(entry(SECOND, last=FIRST), FIRST)
    assert len(plan.take(FIRST + 3 * HOUR, 0)) == 1


def test_a_clock_put_back_silences_no_interval() -> None:
    plan = Plan()
    plan.add(entry(MINUTE, last=FIRST + HOUR), FIRST + HOUR)
    plan.replan(FIRST + 90 * SECOND)
    assert plan.next_due() == FIRST + 2 * MINUTE


def test_a_clock_put_back_a_little_repeats_no_crontab() -> None:
    plan = Plan()
    cron = Crontab("0", "*", "*", "*", "*", ZoneInfo("UTC"))
    plan.add(Entry(1, cron, created=FIRST, last=FIRST + 5 * HOUR), FIRST + 5 * HOUR)
    plan.replan(FIRST + 4 * HOUR)
    assert plan.next_due() == FIRST + 6 * HOUR
    plan.replan(FIRST + 5 * HOUR - SET_BACK - HOUR)
    assert plan.next_due() == FIRST + 2 * HOUR
