"""Alertmanager's and Grafana's webhooks become conditions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from django.core.exceptions import ValidationError
from django.core.handlers.wsgi import WSGIHandler
from programs import Program, make_program, problem_of

import alertmanager
from harness import wait_for
from soc.alerts.models import OPEN, Alert
from soc.core.severity import Severity
from soc.notify.models import validate_applications

ALERTMANAGER = "/api/v1/alertmanager"
GRAFANA = "/api/v1/grafana"

# From prometheus.io/docs/alerting/latest/configuration, with values.
GROUP: dict[str, Any] = {
    "version": "4",
    "groupKey": '{}:{alertname="DiskFull"}',
    "truncatedAlerts": 0,
    "status": "firing",
    "receiver": "soc",
    "groupLabels": {"alertname": "DiskFull"},
    "commonLabels": {"alertname": "DiskFull", "severity": "critical"},
    "commonAnnotations": {},
    "externalURL": "https://am.example:9093",
    "alerts": [
        {
            "status": "firing",
            "labels": {
                "alertname": "DiskFull",
                "severity": "critical",
                "instance": "db1:9100",
                "device": "sda1",
                "site": "north",
            },
            "annotations": {
                "summary": "95 % are used.",
                "description": "At db1.",
                "runbook_url": "https://wiki.example/disk",
            },
            "startsAt": "2026-11-27T15:04:05.123Z",
            "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "https://prometheus.example/graph?g0.expr=1",
            "fingerprint": "d37cc0c4d3bb2c1e",
        }
    ],
}

# From grafana.com/docs/grafana/latest/alerting, "webhook notifier".
OF_GRAFANA: dict[str, Any] = {
    "receiver": "My Super Webhook",
    "status": "firing",
    "orgId": 1,
    "alerts": [
        {
            "status": "firing",
            "labels": {"alertname": "High memory usage", "team": "blue", "zone": "us-1"},
            "annotations": {
                "description": "The system has high memory usage",
                "runbook_url": "https://myrunbook.com/runbook/1234",
                "summary": "This alert was triggered for zone us-1",
            },
            "startsAt": "2021-10-12T09:51:03.157076+02:00",
            "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "https://play.grafana.org/alerting/1afz29v7z/edit",
            "fingerprint": "c6eadffa33fcdf37",
            "silenceURL": "https://play.grafana.org/alerting/silence/new?matchers=x",
            "dashboardURL": "",
            "panelURL": "",
            "values": {"B": 44.23943737541908, "C": 1},
            "valueString": "[ var='B' labels={} value=44.2 ]",
        },
        {
            "status": "resolved",
            "labels": {"alertname": "High CPU usage", "team": "blue", "zone": "eu-1"},
            "annotations": None,
            "startsAt": "2021-10-12T09:56:03.157076+02:00",
            "endsAt": "2021-10-12T09:58:03.157076+02:00",
            "generatorURL": "https://play.grafana.org/alerting/d1rdpdv7k/edit",
            "fingerprint": "bc97ff14869b13e3",
            "values": None,
            "valueString": "",
        },
    ],
    "groupLabels": {},
    "commonLabels": {"team": "blue"},
    "commonAnnotations": {},
    "externalURL": "https://play.grafana.org/",
    "version": "1",
    "groupKey": "{}:{}",
    "truncatedAlerts": 0,
    "title": "[FIRING:2]  (blue)",
    "state": "alerting",
    "message": "**Firing**",
}


def group(**alert: Any) -> dict[str, Any]:
    return {**GROUP, "alerts": [{**GROUP["alerts"][0], **alert}]}


@pytest.mark.django_db
def test_an_alert_of_alertmanager_opens_one_and_its_end_resolves_it() -> None:
    program = make_program("report_condition")
    assert program.post(ALERTMANAGER, GROUP).json()["results"][0]["outcome"] == "fired"
    alert = Alert.objects.get()
    assert str(alert.rule) == "alertmanager/alert"
    target = "DiskFull: device=sda1, instance=db1:9100, severity=critical, site=north"
    assert alert.subject.name == target
    assert (alert.severity, alert.site) == (Severity.CRITICAL, "north")
    assert alert.summary == "95 % are used.\nAt db1."
    assert alert.link == "https://prometheus.example/graph?g0.expr=1"
    assert alert.facts["runbook_url"] == "https://wiki.example/disk"
    assert alert.facts["Since, there"] == "2026-11-27T15:04:05.123Z"
    again = program.post(ALERTMANAGER, GROUP)
    assert again.json()["results"][0]["outcome"] == "unchanged"
    over = program.post(ALERTMANAGER, group(status="resolved"))
    assert over.json()["results"][0]["outcome"] == "resolved"


@pytest.mark.django_db
def test_grafanas_published_example_is_taken() -> None:
    program = make_program("report_condition")
    answer = program.post(GRAFANA, OF_GRAFANA)
    assert [one["outcome"] for one in answer.json()["results"]] == ["fired", "unchanged"]
    alert = Alert.objects.get()
    assert str(alert) == "grafana/alert: High memory usage: team=blue, zone=us-1"
    assert alert.severity == Severity.WARNING
    assert alert.facts["Silence it there"].startswith("https://play.grafana.org/")
    assert alert.facts["Values"] == "[ var='B' labels={} value=44.2 ]"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("word", "severity"),
    [
        ("critical", Severity.CRITICAL),
        ("PAGE", Severity.CRITICAL),
        ("error", Severity.CRITICAL),
        ("warning", Severity.WARNING),
        ("whatever", Severity.WARNING),
        ("info", Severity.INFO),
        ("none", Severity.INFO),
    ],
)
def test_a_label_says_how_severe_it_is(word: str, severity: Severity) -> None:
    labels = {"alertname": "A", "severity": word}
    make_program("report_condition").post(ALERTMANAGER, group(labels=labels))
    assert Alert.objects.get().severity == severity


@pytest.mark.django_db
def test_alerts_that_differ_in_one_label_are_two() -> None:
    """Two thresholds of one alert fire at the same time, and one of them ends before the other."""
    program = make_program("report_condition")
    both = [
        {**GROUP["alerts"][0], "labels": {"alertname": "A", "severity": word}}
        for word in ("warning", "critical")
    ]
    program.post(ALERTMANAGER, {**GROUP, "alerts": both})
    program.post(ALERTMANAGER, {**GROUP, "alerts": [both[0], {**both[1], "status": "resolved"}]})
    assert [alert.severity for alert in Alert.objects.filter(OPEN)] == [Severity.WARNING]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("labels", "target"),
    [
        ({}, "alert"),
        ({"alertname": " \x00 "}, "alert"),
        ({"alertname": "A", "b": "x\ny"}, "A: b=x y"),
        ({"alertname": "A" * 300}, None),
    ],
)
def test_any_labels_make_a_target(labels: dict[str, str], target: str | None) -> None:
    answer = make_program("report_condition").post(ALERTMANAGER, group(labels=labels))
    assert answer.status_code == 200, answer.content
    name = Alert.objects.get().subject.name
    assert name == target if target else len(name) <= 200


@pytest.mark.django_db
@pytest.mark.parametrize("address", ["javascript:alert(1)", "https://a b/", "x" * 600, "//x.test"])
def test_what_is_no_address_is_not_linked_and_refuses_nothing(address: str) -> None:
    """A refusal would lose the alert: Alertmanager does not repeat what was answered with 4xx."""
    answer = make_program("report_condition").post(ALERTMANAGER, group(generatorURL=address))
    assert answer.status_code == 200
    assert Alert.objects.get().link == ""


@pytest.mark.django_db
def test_what_is_no_webhook_of_theirs_is_refused_with_the_place(program: Program) -> None:
    assert "Nothing was done" in problem_of(program.post(ALERTMANAGER, {"alerts": [{}]}), 422)
    assert problem_of(program.post(GRAFANA, [1]), 422)
    assert problem_of(make_program("view_alert").post(GRAFANA, OF_GRAFANA), 403)
    assert not Alert.objects.exists()


@pytest.mark.django_db
def test_a_subscription_can_be_for_one_sender_alone() -> None:
    validate_applications("alertmanager, grafana, ssl_certs")
    with pytest.raises(ValidationError, match="Not an application: prometheus"):
        validate_applications("prometheus")


# --- A real Alertmanager ------------------------------------------------------------------------


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def served(heard: list[str]) -> Iterator[str]:
    """Serve the application over plain HTTP, as if TLS had ended before it; note its answers."""
    handler = WSGIHandler()

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        body = b"".join(handler(environ | {"wsgi.url_scheme": "https"}, start_response))
        heard.append(body.decode())
        return [body]

    with make_server("127.0.0.1", 0, application, handler_class=_Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()


@pytest.mark.usefixtures("transactional_db")
def test_a_real_alertmanager_opens_and_ends_an_alert_here(tmp_path: Path) -> None:
    secret = make_program("report_condition").secret
    heard: list[str] = []

    def answered(outcome: str) -> Callable[[], bool]:
        # Of the answers, not of the database: a thread that reads keeps the other from writing.
        return lambda: any(f'"{outcome}"' in answer for answer in heard)

    with (
        served(heard) as url,
        alertmanager.running(tmp_path, f"{url}{ALERTMANAGER}", secret) as address,
    ):
        alertmanager.fire(address, datetime.now(UTC) + timedelta(hours=1))
        wait_for("the alert", answered("fired"))
        wait_for("a repetition, which changes nothing", answered("unchanged"))
        alertmanager.fire(address, datetime.now(UTC))
        wait_for("its end", answered("resolved"))
    alert = Alert.objects.get()
    assert str(alert) == "alertmanager/alert: DiskFull: instance=db1:9100, severity=critical"
    assert list(alert.events.values_list("kind", flat=True)) == ["fired", "resolved"]
    assert all("results" in answer for answer in heard)
