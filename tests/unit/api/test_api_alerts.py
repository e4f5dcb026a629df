"""What programs read of alerts, and do with them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.utils import timezone
from programs import Program, problem_of

from soc.alerts.models import Alert, AlertEvent, Rule
from soc.api import routes
from soc.core.severity import Severity

pytestmark = pytest.mark.django_db

ALERTS = "/api/v1/alerts"

Make = Callable[..., Alert]


def listed(program: Program, **query: object) -> list[str]:
    answer = program.get(ALERTS, **query)
    assert answer.status_code == 200, answer.content
    return [alert["subject"] for alert in answer.json()["items"]]


def test_an_alert_is_shown_with_what_a_program_needs(program: Program, make_alert: Make) -> None:
    alert = make_alert(site="north", summary="It is down.", link="/x", facts={"Code": "7"})
    (shown,) = program.get(ALERTS).json()["items"]
    assert shown["page"].endswith(f"/alerts/{alert.pk}/")
    assert "facts" not in shown
    expected = {
        "id": alert.pk,
        "application": "tests",
        "rule": "works",
        "subject": "bot-1",
        "site": "north",
        "severity": "critical",
        "state": "firing",
        "summary": "It is down.",
        "link": "/x",
        "count": 1,
        "acknowledged_at": None,
        "resolved_at": None,
    }
    assert shown.items() >= expected.items()


def test_only_open_alerts_are_listed_unless_asked_otherwise(
    program: Program, make_alert: Make
) -> None:
    make_alert("a")
    make_alert("b", state="acknowledged")
    make_alert("c", state="resolved", resolved_at=timezone.now())
    assert listed(program) == ["b", "a"]
    assert listed(program, state="resolved") == ["c"]
    assert listed(program, state="any") == ["c", "b", "a"]
    assert listed(program, state="firing") == ["a"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"application": "tests"}, True),
        ({"application": "other"}, False),
        ({"rule": "works"}, True),
        ({"rule": "tests/works"}, False),
        ({"site": "north"}, True),
        ({"site": "nor"}, False),
        ({"severity": "warning"}, True),
        ({"severity": "critical"}, False),
        ({"subject": "OT-1"}, True),
        ({"subject": "%"}, False),
        ({"subject": "bot", "site": "south"}, False),
    ],
)
def test_a_filter_finds(
    program: Program, make_alert: Make, query: dict[str, str], found: bool
) -> None:
    make_alert(site="north", severity=Severity.WARNING)
    assert bool(listed(program, **query)) is found


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"aplication": "tests"}, "no filter 'aplication'; the filters are application, rule"),
        ({"severity": "bad"}, "correct what 'errors' names"),
        ({"state": "open"}, "correct what 'errors' names"),
        ({"limit": "501"}, "correct what 'errors' names"),
        ({"limit": "0"}, "correct what 'errors' names"),
        ({"before": "99999999999999999999"}, "correct what 'errors' names"),
    ],
)
def test_a_wrong_filter_is_refused_and_not_ignored(
    program: Program, query: dict[str, str], words: str
) -> None:
    answer = program.get(ALERTS, **query)
    assert words in problem_of(answer, 422)
    if "errors" in answer.json():
        assert answer.json()["errors"][0]["parameter"] == next(iter(query))


def test_pages_leave_nothing_out_while_alerts_come_and_go(
    program: Program, make_alert: Make
) -> None:
    alerts = [make_alert(f"bot-{n}") for n in range(5)]
    page = program.get(ALERTS, limit=2, site="").json()
    assert page["count"] == 5
    seen = [item["subject"] for item in page["items"]]
    make_alert("newcomer")
    Alert.objects.filter(pk=alerts[4].pk).update(state="resolved", resolved_at=timezone.now())
    while page["next"]:
        page = program.get(page["next"]).json()
        seen += [item["subject"] for item in page["items"]]
    assert seen == ["bot-4", "bot-3", "bot-2", "bot-1", "bot-0"]


def test_a_long_list_costs_as_many_queries_as_a_short_one(
    program: Program, make_alert: Make, django_assert_num_queries: Callable
) -> None:
    program.get(ALERTS)
    for count in (1, 20):
        for n in range(count):
            make_alert(f"{count}-{n}")
        # The token, its user's rights (own and by groups), the count and the alerts.
        with django_assert_num_queries(5):
            program.get(ALERTS)


def test_an_alert_has_its_timeline(program: Program, make_alert: Make) -> None:
    alert = make_alert(facts={"Code": "7"})
    for kind in ("pending", "fired"):
        AlertEvent.objects.create(alert=alert, kind=kind, after=kind.replace("fired", "firing"),
                                  severity=30)  # fmt: skip
    shown = program.get(f"{ALERTS}/{alert.pk}").json()
    assert (shown["facts"], shown["runbook"]) == ({"Code": "7"}, "https://wiki.test/w")
    assert [event["kind"] for event in shown["timeline"]] == ["pending", "fired"]
    assert shown["timeline_left_out"] == 0


def test_of_a_long_timeline_the_newest_are_shown(
    program: Program, make_alert: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "MOST_EVENTS", 2)
    alert = make_alert()
    for text in "abcd":
        AlertEvent.objects.create(alert=alert, kind="noted", after="firing", severity=30, text=text)
    shown = program.get(f"{ALERTS}/{alert.pk}").json()
    assert [event["text"] for event in shown["timeline"]] == ["c", "d"]
    assert shown["timeline_left_out"] == 2


@pytest.mark.parametrize("path", ["", "/acknowledge", "/resolve"])
def test_an_alert_that_does_not_exist_is_not_found(program: Program, path: str) -> None:
    ask = program.post if path else program.get
    assert "There is no alert 7:" in problem_of(ask(f"{ALERTS}/7{path}"), 404)
    assert ask(f"{ALERTS}/{10**30}{path}").status_code == 422
    assert ask(f"{ALERTS}/x{path}").status_code == 404


def test_an_alert_is_acknowledged_in_the_name_of_the_tokens_user(
    program: Program, make_alert: Make
) -> None:
    alert = make_alert()
    answer = program.post(f"{ALERTS}/{alert.pk}/acknowledge", {"note": "Jo is on it."})
    assert answer.status_code == 200, answer.content
    shown = answer.json()
    assert (shown["state"], shown["note"]) == ("acknowledged", "Jo is on it.")
    assert shown["acknowledged_by"].startswith("user of view_alert")
    (event,) = shown["timeline"]
    assert (event["kind"], event["by"]) == ("acknowledged", shown["acknowledged_by"])


def test_an_alert_is_resolved_without_a_body(program: Program, make_alert: Make) -> None:
    alert = make_alert()
    shown = program.post(f"{ALERTS}/{alert.pk}/resolve").json()
    assert (shown["state"], shown["timeline"][0]["kind"]) == ("resolved", "resolved")
    alert.refresh_from_db()
    assert (alert.state, alert.open_key) == ("resolved", None)


@pytest.mark.parametrize("state", ["acknowledged", "pending", "suppressed", "resolved"])
def test_what_cannot_be_acknowledged_is_a_conflict(
    program: Program, make_alert: Make, state: str
) -> None:
    alert = make_alert(state=state, resolved_at=timezone.now() if state == "resolved" else None)
    refusal = problem_of(program.post(f"{ALERTS}/{alert.pk}/acknowledge"), 409)
    assert refusal.startswith(f"Alert {alert.pk} is {state}. Only alerts that fire or flap")


def test_what_is_over_cannot_be_resolved_again(program: Program, make_alert: Make) -> None:
    alert = make_alert()
    assert program.post(f"{ALERTS}/{alert.pk}/resolve").status_code == 200
    assert "is resolved" in problem_of(program.post(f"{ALERTS}/{alert.pk}/resolve"), 409)
    assert AlertEvent.objects.count() == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [("{", 400), ("[]", 422), ('{"nte": ""}', 422), ('{"note": 7}', 422), ('"x"', 422)],
)
def test_a_note_that_is_none_is_refused(
    program: Program, make_alert: Make, body: str, status: int
) -> None:
    answer = program.post(f"{ALERTS}/{make_alert().pk}/acknowledge", body)
    problem_of(answer, status)
    assert Alert.objects.get().state == "firing"


def test_a_rule_shows_no_alerts_of_another(program: Program, make_alert: Make) -> None:
    make_alert()
    Rule.objects.create(application="tests", name="other")
    assert listed(program, rule="other") == []
