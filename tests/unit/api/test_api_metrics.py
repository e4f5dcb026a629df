"""What Prometheus reads, and whether the process is ready."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import OperationalError, connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client
from django.utils import timezone
from programs import Program, make_program, problem_of
from prometheus_client.parser import text_string_to_metric_families

import pki
from soc.alerts.models import Alert, Rule
from soc.beat.models import Instance
from soc.core import readiness
from soc.core.models import Heartbeat, QueueSample, TaskFailure
from soc.core.severity import Severity
from soc.ldap_probe.models import DirectoryServer, ProbeResult
from soc.notify.models import Destination, OutboundMail, Relay, Subscription
from soc.ssl_certs.models import Certificate, Endpoint, Group

pytestmark = pytest.mark.django_db

Values = dict[tuple[str, ...], float]


def ago(**span: float) -> object:
    return timezone.now() - timedelta(**span)


def read(program: Program) -> Values:
    """Return every value by its name and its labels' values."""
    answer = program.get("/metrics")
    assert answer.status_code == 200, answer.content
    assert answer["Content-Type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(answer.content.decode())
    samples = [sample for family in families for sample in family.samples]
    values = {(sample.name, *sample.labels.values()): sample.value for sample in samples}
    assert len(values) == len(samples)
    return values


def make_mail(key: str, state: str = "queued", **values: object) -> None:
    at = values.pop("created_at", timezone.now())
    next_try_at = timezone.now() if state == "queued" else None
    OutboundMail.objects.create(
        dedupe_key=key, recipients=["a@b.test"], subject="s", text="t", html="h", state=state,
        created_at=at, next_try_at=next_try_at, **values,
    )  # fmt: skip


def test_a_stranger_reads_no_metrics(stranger: Program) -> None:
    problem_of(stranger.get("/metrics"), 401)
    problem_of(make_program("report_condition").get("/metrics"), 403)


def test_open_alerts_are_counted_and_zeros_are_told(
    program: Program, make_alert: Callable[..., Alert]
) -> None:
    make_alert("a")
    make_alert("b")
    make_alert("c", severity=Severity.WARNING, state="acknowledged")
    make_alert("d", state="resolved", resolved_at=timezone.now())
    Rule.objects.create(application="quiet", name="r")
    values = read(program)
    assert values["soc_alerts_open", "tests", "critical", "firing"] == 2
    assert values["soc_alerts_open", "tests", "warning", "acknowledged"] == 1
    assert values["soc_alerts_open", "quiet", "critical", "firing"] == 0
    assert sum(value for name, value in values.items() if name[0] == "soc_alerts_open") == 3


def test_the_last_sample_of_each_queue_is_told(program: Program) -> None:
    for minutes, depth in ((1, 5), (2, 9), (10, 99)):
        at = ago(minutes=minutes)
        QueueSample.objects.create(queue="email", at=at, depth=depth, consumers=3, dead=1)
    QueueSample.objects.create(queue="shared", at=ago(hours=1), depth=7, consumers=1, dead=0)
    values = read(program)
    assert values["soc_queue_depth", "email"] == 5
    assert values["soc_queue_consumers", "email"] == 3
    assert values["soc_queue_dead", "email"] == 1
    assert 60 <= values["soc_queue_sample_age_seconds", "email"] < 120
    # What is too old says nothing about now, but its age can be alerted on.
    assert math.isnan(values["soc_queue_depth", "shared"])
    assert 3600 <= values["soc_queue_sample_age_seconds", "shared"] < 3660
    assert values["soc_queue_sample_age_seconds", "ssl_certs"] == math.inf


def test_workers_and_beats_that_are_alive_are_told(program: Program) -> None:
    for instance, seconds in (("a", 1), ("b", 2), ("gone", 100)):
        Heartbeat.objects.create(
            service="worker-email", instance=instance, seen_at=ago(seconds=seconds)
        )
    for name, leader, seconds in (("one", True, 1), ("two", False, 1), ("old", True, 600)):
        Instance.objects.create(
            name=name, leader=leader, started_at=ago(days=1), ticked_at=ago(seconds=seconds),
            lag=0.25, schedules=5, published=1, lost=0,
        )  # fmt: skip
    values = read(program)
    assert values["soc_workers_alive", "worker-email"] == 2
    assert values["soc_workers_alive", "worker-shared"] == 0
    assert values["soc_beat_leader",] == 1
    assert values["soc_beat_lag_seconds",] == 0.25
    assert values["soc_broker_blocked",] == 0


def test_without_a_live_beat_its_series_stay(program: Program) -> None:
    assert read(program)["soc_beat_leader",] == 0
    Instance.objects.create(
        name="old", leader=True, started_at=ago(days=1), ticked_at=ago(minutes=10),
        lag=0.25, schedules=5, published=1, lost=0,
    )  # fmt: skip
    values = read(program)
    assert values["soc_beat_leader",] == 0
    assert math.isnan(values["soc_beat_lag_seconds",])


def test_the_series_are_the_same_with_and_without_rows(
    program: Program, make_alert: Callable[..., Alert]
) -> None:
    make_alert("a", state="resolved", resolved_at=timezone.now())
    before = set(read(program))
    make_alert("b")
    make_mail("a")
    TaskFailure.objects.create(task="t", kind="timeout", at=ago(minutes=1))
    QueueSample.objects.create(queue="email", depth=5, consumers=3, dead=1)
    Heartbeat.objects.create(service="worker-email", instance="a", seen_at=timezone.now())
    Relay.objects.update_or_create(pk=1, defaults={"down_since": timezone.now()})
    assert set(read(program)) == before


def test_no_label_is_one_that_prometheus_sets_itself(program: Program) -> None:
    page = program.get("/metrics").content.decode()
    families = text_string_to_metric_families(page)
    labels = {label for family in families for one in family.samples for label in one.labels}
    assert labels
    assert not labels & {"instance", "job"}


def test_mail_and_its_relay_are_told(program: Program) -> None:
    assert read(program)["soc_mail_relay_up",] == 1
    make_mail("a", created_at=ago(minutes=10))
    make_mail("b")
    make_mail("held", gathered=True, created_at=ago(hours=8))
    make_mail("c", "sent")
    make_mail("d", "sent", created_at=ago(days=2))
    Relay.objects.update_or_create(pk=1, defaults={"down_since": timezone.now()})
    values = read(program)
    assert values["soc_mails", "queued"] == 3
    assert values["soc_mails", "sent"] == 1
    assert values["soc_mails", "expired"] == 0
    assert values["soc_mails_waiting",] == 2
    assert 600 <= values["soc_mail_oldest_waiting_seconds",] < 660
    assert values["soc_mail_relay_up",] == 0


def test_tasks_that_failed_lately_are_told(program: Program) -> None:
    for minutes in (1, 2, 90):
        TaskFailure.objects.create(task="t", kind="timeout", at=ago(minutes=minutes))
    values = read(program)
    assert values["soc_task_failures", "timeout"] == 2
    assert values["soc_task_failures", "error"] == 0


def test_metrics_cost_the_same_queries_however_much_there_is(
    program: Program, make_alert: Callable[..., Alert], django_assert_num_queries: Callable
) -> None:
    program.get("/metrics")
    for count in (0, 20):
        for n in range(count):
            make_alert(f"bot-{n}")
            make_mail(str(n))
            Rule.objects.create(application=f"a{n}", name="r")
            QueueSample.objects.create(queue=f"q{n}", depth=1, consumers=1, dead=0)
        # The token and its user's rights (3); alerts and applications, samples and their ages,
        # dead letters, workers, beats, mails by state and the waiting ones, the relay, failures.
        with django_assert_num_queries(22):
            program.get("/metrics")


def test_openmetrics_is_spoken_to_who_asks_for_it(program: Program) -> None:
    headers = {"Authorization": f"Bearer {program.secret}"}
    accept = "application/openmetrics-text; version=1.0.0"
    answer = Client(headers=headers).get("/metrics", secure=True, headers={"Accept": accept})
    assert answer["Content-Type"].startswith("application/openmetrics-text")
    assert answer.content.endswith(b"# EOF\n")


# --- Readiness ----------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def unasked() -> None:
    """An answer stands for some seconds, past the end of a test."""
    readiness._recent_problem.cache_clear()


def test_a_process_with_its_database_is_ready(stranger: Program) -> None:
    answer = stranger.get("/readyz")
    assert (answer.status_code, answer.content) == (200, b"ready\n")


def test_a_database_that_is_behind_is_told_but_not_by_how_much(stranger: Program) -> None:
    MigrationRecorder(connection).record_unapplied("alerts", "0001_initial")
    answer = stranger.get("/readyz")
    assert answer.status_code == 503
    assert answer.content == b"not ready: the database is not up to date\n"


def test_a_database_that_is_down_is_told_without_its_name(
    stranger: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise OperationalError("(2005, \"Unknown server host 'mariadb'\")")

    monkeypatch.setattr(MigrationRecorder, "applied_migrations", fail)
    answer = stranger.get("/readyz")
    assert answer.status_code == 503
    assert answer.content == b"not ready: the database does not answer\n"


def test_without_a_database_the_api_says_so(
    stranger: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise OperationalError("gone")

    monkeypatch.setattr("soc.core.tokens.of_secret", fail)
    for path in ("/metrics", "/api/v1/alerts"):
        answer = Program("soc_x").get(path)
        assert "Send the same again in 5 s" in problem_of(answer, 503)
        assert answer["Retry-After"] == "5"


def test_channels_certificates_and_directories_are_counted(program: Program) -> None:
    hook = Subscription.objects.create(name="hook", channel="webhook")
    Destination.objects.create(subscription=hook, down_since=timezone.now())
    make_mail("a", "sent", channel="webhook", subscription=hook)
    policy = Group.objects.create(name="web")
    pem = pki.issue("x").cert_pem.decode()
    for host, days in (("a", 40), ("b", 9)):
        found = Certificate.objects.create(
            fingerprint=host * 64, pem=pem, not_after=timezone.now() + timedelta(days=days)
        )
        Endpoint.objects.create(host=host, group=policy, certificate=found, status="warning")
    Endpoint.objects.create(host="off", group=policy, enabled=False)
    server = DirectoryServer.objects.create(host="ldap.internal")
    ProbeResult.objects.create(server=server, at=timezone.now(), outcome="timeout")
    ProbeResult.objects.create(server=server, at=ago(hours=2), outcome="down")
    values = read(program)
    assert values["soc_channels_down", "webhook"] == 1
    assert values["soc_channels_down", "slack"] == 0
    assert values["soc_channel_messages", "webhook", "sent"] == 1
    assert 8.9 < values["soc_certificate_days_left", "web"] < 9.1
    assert values["soc_endpoints", "warning"] == 2
    assert values["soc_directory_probes", "timeout"] == 1
    assert values["soc_directory_probes", "down"] == 0
    assert values["soc_directory_servers", "unknown"] == 1
