"""Alerts from the command line."""

from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO
from typing import TYPE_CHECKING

import pytest
from django.core.management import CommandError, call_command

from soc.alerts import simulation
from soc.alerts.models import OPEN, Alert, AlertEvent, Rule, Subject
from soc.core.severity import Severity
from soc.notify.models import OutboundMail, Subscription

if TYPE_CHECKING:
    from conftest import Report

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("rule")]


def run(*arguments: object) -> str:
    output = StringIO()
    call_command("alerts", *map(str, arguments), stdout=output, stderr=output)
    return output.getvalue()


def test_open_alerts_are_listed_the_worst_first(report: Report) -> None:
    report("warning", subject="bot-1", site="north")
    report("critical", subject="bot-2")
    report("critical", subject="bot-3")
    report("ok", subject="bot-3")
    head, first, second = run("list").splitlines()
    assert head.split() == ["id", "severity", "state", "age", "rule", "subject", "site"]
    assert "critical  firing  " in first
    assert first.endswith("tests/works  bot-2")
    assert second.endswith("tests/works  bot-1    north")


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (["--site", "north"], ["bot-1"]),
        (["--severity", "critical"], ["bot-2"]),
        (["--subject", "BOT"], ["bot-2", "bot-1"]),
        (["--application", "other"], []),
        (["--rule", "works", "--state", "resolved"], ["bot-3"]),
        (["--state", "any", "--limit", "1"], ["bot-2"]),
    ],
)
def test_a_list_for_programs_is_filtered_json(
    report: Report, filters: list[str], found: list[str]
) -> None:
    report("warning", subject="bot-1", site="north")
    report("critical", subject="bot-2")
    report("info", subject="bot-3")
    report("ok", subject="bot-3")
    assert [alert["subject"] for alert in json.loads(run("list", "--json", *filters))] == found


def test_a_list_that_is_cut_says_so(report: Report) -> None:
    report("warning", subject="bot-1")
    report("warning", subject="bot-2")
    assert run("list", "--limit", 1).endswith("These are 1 of 2; --limit shows more.\n")


def test_alerts_are_acknowledged_and_resolved_with_a_note(report: Report) -> None:
    report("critical", subject="bot-1")
    report("critical", subject="bot-2")
    one, two = Alert.objects.order_by("pk")
    said = run("ack", one.pk, two.pk, one.pk, "--note", "Jo is on it.", "--by", "jo")
    assert said == f"{one.pk} acknowledged\n{two.pk} acknowledged\n"
    event = AlertEvent.objects.filter(alert=one).latest("pk")
    assert (event.kind, event.by, event.text) == ("acknowledged", "jo", "Jo is on it.")
    assert run("resolve", two.pk) == f"{two.pk} resolved\n"
    assert AlertEvent.objects.latest("pk").by == "command line"
    assert list(Alert.objects.filter(OPEN)) == [one]


def test_what_does_not_exist_keeps_everything_as_it_is(report: Report) -> None:
    report("critical")
    key = Alert.objects.get().pk
    with pytest.raises(CommandError, match=f"Nothing was done: there is no alert {key + 1}, 77"):
        run("resolve", key, key + 1, 77)
    assert Alert.objects.get().state == "firing"


def test_what_cannot_be_acknowledged_is_named_and_the_rest_is_done(report: Report) -> None:
    report("critical", subject="bot-1")
    report("critical", subject="bot-2")
    one, two = Alert.objects.order_by("pk")
    run("resolve", one.pk)
    with pytest.raises(CommandError, match=rf"cannot be acknowledged: {one.pk} \(resolved\)"):
        run("ack", one.pk, two.pk)
    two.refresh_from_db()
    assert two.state == "acknowledged"


# --- Trying out a rule --------------------------------------------------------------------------


def test_a_simulation_shows_each_step_and_writes_nothing(rule: Rule) -> None:
    Rule.objects.filter(pk=rule.pk).update(needed=2, window=3, good_needed=2)
    lines = run(
        "simulate", rule, "critical", "critical", "ok*2 warning", "--every", 30
    ).splitlines()
    assert [line.split() for line in lines[:6]] == [
        ["report", "after", "reported", "state", "severity", "event", "mail"],
        ["1", "0:00:00", "critical", "pending", "critical", "pending", "-"],
        ["2", "0:00:30", "critical", "firing", "critical", "fired", "yes"],
        ["3", "0:01:00", "ok", "firing", "critical", "-", "-"],
        ["4", "0:01:30", "ok", "resolved", "critical", "resolved", "yes"],
        ["5", "0:02:00", "warning", "pending", "warning", "pending", "-"],
    ]
    assert lines[7:] == ["p F* F r* p", f"({simulation.LEGEND})"]
    assert not Subject.objects.exists()
    assert not OutboundMail.objects.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tests/gone", "ok"], "no rule 'tests/gone'; there are: .*tests/works"),
        (["works", "ok"], "no rule 'works'"),
        (["tests/works", "bad"], "'bad' is no report: write ok, info, warning, critical"),
        (["tests/works", "ok*0"], "'ok\\*0' is no report"),
        (["tests/works", "ok*-1"], "'ok\\*-1' is no report"),
        (["tests/works", "ok*999", "ok*2"], "more than 1,000 reports"),
        (["tests/works", " "], "There is no report"),
        (["tests/works", "ok", "--every", "0"], "'0' is no number from 1"),
        (["tests/works", "ok", "--every", "1e3"], "'1e3' is no number from 1"),
        (["tests/works", "ok", "--every", "1" + "0" * 30], "is no number from 1"),
    ],
)
def test_a_simulation_says_what_will_not_do(arguments: list[str], words: str) -> None:
    with pytest.raises(CommandError, match=words):
        run("simulate", *arguments)


SERIES = [
    "critical ok critical ok critical ok critical ok ok ok",
    "warning critical info ok*2 critical*3 ok",
    "critical ok*3 critical critical ok ok*2 warning*4 ok*3",
    "critical ok critical*9 ok*9 warning critical",
    "info ok warning ok critical ok info*2 ok*40 critical",
]
SETTINGS = [
    {},
    {"needed": 2, "window": 3, "good_needed": 2},
    {"needed": 3, "window": 3, "good_needed": 3, "flap_changes": 3},
    {"flap_changes": 2, "flap_minutes": 4},
]


@pytest.mark.parametrize("values", SETTINGS, ids=str)
@pytest.mark.parametrize("series", SERIES)
def test_a_simulation_foretells_what_really_happens(
    rule: Rule, subscription: Subscription, report: Report, values: dict[str, int], series: str
) -> None:
    Rule.objects.filter(pk=rule.pk).update(**values)
    rule.refresh_from_db()
    reports = simulation.read_reports(series.split())
    for step in simulation.run(rule, reports, timedelta(minutes=1)):
        result = report(str(Severity(step.reported).label))
        OutboundMail.objects.filter(state="queued").update(state="sent", next_try_at=None)
        assert result.outcome == (step.event or "unchanged")
        assert bool(result.mails) is step.mails
        alert = Alert.objects.order_by("pk").last()
        if step.state is None:
            assert alert is None or alert.state == "resolved"
        else:
            assert (alert.state, alert.severity) == (step.state, step.severity)
