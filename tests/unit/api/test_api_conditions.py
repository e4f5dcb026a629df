"""Conditions that are reported from outside."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from programs import Program, make_program, problem_of

from soc.alerts import engine
from soc.alerts.models import Alert, Subject
from soc.notify.models import OutboundMail, Subscription
from soc.runtime.celery import app

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("rule")]

CONDITIONS = "/api/v1/conditions"


def condition(**values: Any) -> dict[str, Any]:
    return {
        "application": "tests",
        "rule": "works",
        "subject": "bot-1",
        "severity": "critical",
        "observed_at": timezone.now().isoformat(),
        **values,
    }


def outcomes(program: Program, body: object) -> list[str]:
    answer = program.post(CONDITIONS, body)
    assert answer.status_code == 200, answer.content
    return [result["outcome"] for result in answer.json()["results"]]


def test_a_condition_opens_an_alert_and_its_mail(program: Program) -> None:
    Subscription.objects.create(name="ops", recipients="a@health.internal")
    parent = {"rule": "site", "subject": "north"}
    sent = condition(
        summary="It is down.", facts={"Code": 7, "Hosts": ["a", "b"]}, link="https://x.test/b",
        site="north", parent=parent,
    )  # fmt: skip
    answer = program.post(CONDITIONS, sent)
    assert answer.json() == {"results": [{"outcome": "fired", "mails": 1}]}
    alert = Alert.objects.get()
    assert (alert.summary, alert.link, alert.site) == ("It is down.", "https://x.test/b", "north")
    assert alert.facts == {"Code": "7", "Hosts": '["a", "b"]'}
    assert Subject.objects.get().parent
    assert OutboundMail.objects.get().state == OutboundMail.State.QUEUED


def test_every_condition_of_a_list_has_its_outcome(program: Program) -> None:
    old = (timezone.now() - timedelta(days=1)).isoformat()
    sent = [
        condition(subject="a"),
        condition(subject="b", severity="ok"),
        condition(subject="c", observed_at=old),
        condition(subject="a", severity="ok", observed_at=old),
    ]
    assert outcomes(program, sent) == ["fired", "unchanged", "stale", "late"]


def test_the_same_sent_again_changes_nothing(program: Program) -> None:
    sent = condition()
    assert outcomes(program, sent) == ["fired"]
    assert outcomes(program, sent) == ["late"]
    assert Alert.objects.count() == 1


def test_nothing_is_published_to_the_broker(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish(*_: object, **__: object) -> None:
        raise AssertionError("A request must not wait on the broker.")

    monkeypatch.setattr(app, "send_task", publish)
    monkeypatch.setattr(app.amqp, "send_task_message", publish)
    Subscription.objects.create(name="ops", recipients="a@health.internal")
    assert outcomes(program, condition()) == ["fired"]
    assert program.post(f"/api/v1/alerts/{Alert.objects.get().pk}/resolve").status_code == 200


@pytest.mark.parametrize("unknown", ["tests/gone", "gone/works", "TESTS/works", "\0/\u202e"])
def test_an_unknown_rule_is_named_with_the_known_ones(program: Program, unknown: str) -> None:
    application, name = unknown.split("/")
    sent = [condition(subject="a"), condition(application=application, rule=name)]
    for body in (sent, sent[1]):
        refusal = problem_of(program.post(CONDITIONS, body), 422)
        assert f"There is no rule {unknown}" in refusal
        assert "tests/works" in refusal
    assert not Alert.objects.exists()


WRONG = [
    ("severity", "bad"),
    ("severity", 30),
    ("subject", ""),
    ("subject", "\n\t \u0007"),
    ("subject", None),
    ("subject", 7),
    ("application", ""),
    ("application", "x" * 41),
    ("site", "x" * 65),
    ("observed_at", "yesterday"),
    ("observed_at", "2026-11-22T18:00:00"),
    ("observed_at", "2026-11-22"),
    ("observed_at", 1_795_370_400),
    ("observed_at", "1795370400"),
    ("observed_at", "0001-01-01T00:00:00+14:00"),
    ("observed_at", "9999-12-31T23:59:59-14:00"),
    ("observed_at", "1999-12-31T23:59:59Z"),
    ("link", "javascript:alert(1)"),
    ("link", "//elsewhere.test/"),
    ("link", "/\\elsewhere.test/"),
    ("link", "https://"),
    ("link", "https://[/"),
    ("link", "ftp://x.test/"),
    ("link", "page"),
    ("link", "/a\nb"),
    ("link", "/" + "x" * 500),
    ("facts", []),
    ("facts", "x"),
    ("parent", "north"),
    ("parent", {"rule": "site", "subject": " "}),
    ("summary", 7),
    ("stranger", 1),
]


@pytest.mark.parametrize(("field", "value"), WRONG, ids=lambda value: repr(value)[:30])
def test_a_wrong_field_is_named(program: Program, field: str, value: object) -> None:
    answer = program.post(CONDITIONS, [condition(subject="good"), condition(**{field: value})])
    assert problem_of(answer, 422).startswith("Nothing was done")
    (error,) = answer.json()["errors"]
    assert error["pointer"].startswith(f"#/1/{field}")
    assert not Subject.objects.exists()
    (error,) = program.post(CONDITIONS, condition(**{field: value})).json()["errors"]
    assert error["pointer"].startswith(f"#/{field}")


@pytest.mark.parametrize(
    "link", ["", "/certificates/7/?a=b#c", "http://10.0.0.1:8080/", "https://[::1]/"]
)
def test_a_link_leads_to_the_web_or_into_this_site(program: Program, link: str) -> None:
    assert outcomes(program, condition(link=link)) == ["fired"]
    assert Alert.objects.get().link == link


@pytest.mark.parametrize(
    "at", ["2026-01-22T18:00:00Z", "2026-01-22T19:00:00.0+01:00", "20260122T130000-0500"]
)
def test_a_time_is_read_in_any_zone(program: Program, at: str) -> None:
    assert outcomes(program, condition(observed_at=at)) == ["stale"]
    assert Subject.objects.get().observed_at == datetime(2026, 1, 22, 18, tzinfo=UTC)


def test_a_clock_that_is_ahead_is_not_believed(program: Program) -> None:
    assert outcomes(program, condition(observed_at="2999-01-01T00:00:00Z")) == ["fired"]
    assert Subject.objects.get().observed_at <= timezone.now()


def test_many_errors_are_told_in_part(program: Program) -> None:
    answer = program.post(CONDITIONS, [{}] * 500)
    assert problem_of(answer, 422).endswith("There are 2480 more.")
    assert len(answer.json()["errors"]) == 20


@pytest.mark.parametrize(("count", "status"), [(0, 422), (1, 200), (500, 200), (501, 422)])
def test_a_list_has_1_to_500_conditions(program: Program, count: int, status: int) -> None:
    body = [condition(subject=f"bot-{n}") for n in range(count)]
    assert program.post(CONDITIONS, body).status_code == status


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff",
        b'{"application": NaN}',
        b'{"subject": "\\ud800"}',
        b"[" * 100_000,
        b'{"facts": ' + b'{"a":' * 10_000,
        b"1" * 5_000,
        b"\xef\xbb\xbf{}",
    ],
    ids=lambda body: repr(body[:12]),
)
def test_what_is_no_json_is_told_so(program: Program, body: bytes) -> None:
    assert problem_of(program.post(CONDITIONS, body), 400).startswith("The body is no JSON")


def test_a_body_is_asked_for(program: Program) -> None:
    answer = program.post(CONDITIONS)
    problem_of(answer, 422)
    assert answer.json()["errors"][0]["detail"].startswith("A body is required")


@pytest.mark.parametrize("body", [b"null", b"7", b'"x"', b"true"])
def test_what_is_no_condition_is_told_so(program: Program, body: bytes) -> None:
    problem_of(program.post(CONDITIONS, body), 422)


def test_a_body_that_is_too_large_is_refused_unread(program: Program) -> None:
    refusal = program.post(CONDITIONS, condition(facts={"Log": "x" * 5_000_000}))
    assert "larger than 2,621,440 bytes" in problem_of(refusal, 413)


def test_a_long_fact_is_cut_and_says_so(program: Program) -> None:
    assert outcomes(program, condition(facts={"Log": "x" * 1_000_000})) == ["fired"]
    assert Alert.objects.get().facts["Log"].endswith("(1,000,000 characters in all)")


def test_a_stranger_does_not_learn_whether_the_body_is_right(stranger: Program) -> None:
    viewer = make_program("view_alert")
    for body in (b"{", condition(), {}):
        problem_of(stranger.post(CONDITIONS, body), 401)
        problem_of(viewer.post(CONDITIONS, body), 403)


@pytest.mark.parametrize(
    ("failure", "status"), [(OperationalError(1205, "lock wait"), 503), (RuntimeError("x"), 500)]
)
def test_a_failure_is_told_without_its_details(
    program: Program, monkeypatch: pytest.MonkeyPatch, failure: Exception, status: int
) -> None:
    def fail(_: object) -> None:
        raise failure

    monkeypatch.setattr(engine, "report", fail)
    answer = program.post(CONDITIONS, condition())
    assert "lock wait" not in problem_of(answer, status)
    assert ("Retry-After" in answer) is (status == 503)


# --- Anything at all ----------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=()), max_size=30)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
near_misses = st.fixed_dictionaries(
    {},
    optional={
        "application": st.sampled_from(["tests", "", "Tests"]) | values,
        "rule": st.sampled_from(["works", "work"]) | values,
        "subject": texts | values,
        "severity": st.sampled_from(["ok", "info", "warning", "critical", "CRITICAL"]) | values,
        "observed_at": st.datetimes().map(lambda at: f"{at.isoformat()}Z") | values,
        "summary": texts | values,
        "facts": st.dictionaries(texts, values, max_size=60) | values,
        "link": st.sampled_from(["/x", "https://x.test"]) | texts | values,
        "site": texts | values,
        "parent": st.fixed_dictionaries({"rule": texts, "subject": texts}) | values,
    },
)
right = st.fixed_dictionaries(
    {
        "application": st.just("tests"),
        "rule": st.just("works"),
        "subject": texts,
        "severity": st.sampled_from(["ok", "info", "warning", "critical"]),
        "observed_at": st.integers(-2000, 2000).map(
            lambda s: (timezone.now() + timedelta(seconds=s)).isoformat()
        ),
    },
    optional={"summary": texts, "facts": st.dictionaries(texts, values), "site": texts},
)
lists = st.lists(right | near_misses, max_size=5)
bodies = st.one_of(right, near_misses, lists, st.lists(right, min_size=1, max_size=5), values)
sent_bodies = bodies.map(json.dumps) | st.text(max_size=50) | st.binary(max_size=50)


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(body=sent_bodies)
def test_no_body_is_too_odd_to_be_answered(program: Program, body: str | bytes) -> None:
    content = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
    answer = program.post(CONDITIONS, content)
    assert answer.status_code in (200, 400, 422), answer.content
    if answer.status_code == 200:
        sent = json.loads(content)
        assert len(answer.json()["results"]) == (len(sent) if isinstance(sent, list) else 1)
    else:
        assert problem_of(answer, answer.status_code)
