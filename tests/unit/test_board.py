"""The board: what it says of the site, and that its cost does not grow with the rows."""

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.utils import timezone
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from harness import html_of
from soc.alerts import panels as alert_panels
from soc.alerts.models import Alert, AlertEvent, Rule, Subject
from soc.beat.models import Instance, LagSample
from soc.board import data as board_data
from soc.common import times
from soc.common.charts import sparkline
from soc.core import panels as core_panels
from soc.core.models import Heartbeat, QueueSample, TaskFailure
from soc.core.severity import Severity
from soc.notify import panels as mail_panels
from soc.notify.models import OutboundMail, Relay
from soc.runtime.queues import QUEUES
from soc.schedules.schedules import next_run, request_run
from soc.ssl_certs import panels as certificate_panels
from soc.ssl_certs.models import Certificate, Endpoint

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("plain_static_files")]


@pytest.fixture
def now() -> datetime:
    return timezone.now()


@pytest.fixture
def well(now: datetime) -> None:
    """A site whose every process is alive and whose queues were just sampled."""
    for service in (*(queue.service for queue in QUEUES), "beat"):
        Heartbeat.objects.create(service=service, instance="one", seen_at=now)
    for queue in QUEUES:
        QueueSample.objects.create(queue=queue.name, at=now, depth=0, consumers=1, dead=0)


def endpoint(name: str, status: str, days: float | None = None, **values: object) -> Endpoint:
    certificate = None
    if days is not None:
        certificate = Certificate.objects.create(
            fingerprint=name, issuer="CN=An authority", not_after=timezone.now() + timedelta(days)
        )
    return Endpoint.objects.create(host=name, status=status, certificate=certificate, **values)


def mail(key: str, state: str, **values: object) -> OutboundMail:
    return OutboundMail.objects.create(
        dedupe_key=key, recipients=["a@b.test"], subject=key, state=state, **values
    )


def alert(
    name: str, state: str = "firing", severity: str = "critical", hours: float = 1, **values: Any
) -> Alert:
    rule, _ = Rule.objects.get_or_create(application="watch", name="thing")
    subject = Subject.objects.create(rule=rule, name=name, fingerprint=name)
    at = timezone.now() - timedelta(hours=hours)
    return Alert.objects.create(
        rule=rule, subject=subject, open_key=name, state=state, severity=Severity[severity.upper()],
        opened_at=at, last_seen_at=at, **values,
    )  # fmt: skip


def sentences(now: datetime) -> list[str]:
    return [problem.text for problem in board_data.read(now).problems]


@pytest.mark.usefixtures("well")
def test_a_well_site_has_no_troubles(now: datetime) -> None:
    headline = board_data.read(now)
    assert (headline.tone, headline.problems) == ("ok", [])


def test_a_site_that_never_started_says_so(now: datetime) -> None:
    found = " ".join(sentences(now))
    assert "No queue sample in the last hour" in found
    assert "Beat has not been heard of" in found
    for queue in QUEUES:
        assert f"{queue.service} has not been heard of: nothing empties {queue.name}." in found


@pytest.mark.usefixtures("well")
def test_old_samples_are_not_shown_as_live(now: datetime) -> None:
    QueueSample.objects.update(at=now - timedelta(minutes=3), depth=7)
    assert {state.depth for state in core_panels.read_queues(now)} == {None}
    assert sentences(now) == [
        "No queue sample for 3\xa0minutes: is worker-shared or the broker down?"
    ]


@pytest.mark.usefixtures("well")
def test_a_silent_worker_is_named_with_the_length_of_its_silence(now: datetime) -> None:
    silent = Heartbeat.objects.filter(service="worker-email")
    silent.update(seen_at=now - timedelta(seconds=90))
    assert sentences(now) == ["worker-email has been silent for 90 s: nothing empties email."]


@pytest.mark.usefixtures("well")
def test_a_replaced_container_is_no_trouble_and_soon_forgotten(now: datetime) -> None:
    for instance, minutes in (("replaced", 5), ("older", 30)):
        seen_at = now - timedelta(minutes=minutes)
        Heartbeat.objects.create(service="worker-email", instance=instance, seen_at=seen_at)
    email = next(state for state in core_panels.read_queues(now) if state.queue.name == "email")
    assert [(worker.instance, worker.alive) for worker in email.workers] == [
        ("one", True),
        ("replaced", False),
    ]
    assert sentences(now) == []


@pytest.mark.usefixtures("well")
def test_embedded_consumers_are_the_live_workers(now: datetime) -> None:
    QueueSample.objects.update(consumers=0)
    assert {state.consumers for state in core_panels.read_queues(now)} == {1}


@pytest.mark.usefixtures("well")
def test_in_containers_a_live_worker_that_does_not_consume_is_trouble(
    now: datetime, settings: Any
) -> None:
    settings.EMBEDDED = False
    QueueSample.objects.filter(queue="email").update(consumers=0)
    assert sentences(now) == ["worker-email is alive but does not consume email."]


@pytest.mark.usefixtures("well")
def test_dead_letters_and_a_queue_that_backs_up(now: datetime) -> None:
    QueueSample.objects.filter(queue="email").update(dead=1)
    QueueSample.objects.filter(queue="shared").update(depth=9000)
    assert sentences(now) == [
        "shared backs up: 9000 messages wait.",
        "1 dead letter of email waits for a person.",
    ]


@pytest.mark.usefixtures("well")
def test_a_beat_that_stopped_is_trouble(now: datetime) -> None:
    Heartbeat.objects.filter(service="beat").update(seen_at=now - timedelta(minutes=4))
    assert sentences(now) == ["Beat has been silent for 4\xa0minutes: no schedule runs."]


@pytest.mark.usefixtures("well")
def test_endpoints_are_sorted_by_trouble_and_then_by_days_left(now: datetime) -> None:
    endpoint("fine", "ok", 200)
    endpoint("new", "unknown")
    endpoint("later", "warning", 29)
    endpoint("sooner", "warning", 9)
    endpoint("near", "critical", 2.5)
    endpoint("gone", "unreachable")
    endpoint("bad", "invalid", -3.5, reason="It has expired.")
    endpoint("off", "invalid", enabled=False)
    certificates = certificate_panels.read(now)
    assert [row.endpoint.host for row in certificates.rows] == [
        *("bad", "gone", "near", "sooner", "later", "fine", "new")
    ]
    bad, gone, near = certificates.rows[:3]
    assert (bad.days, bad.bar, bad.endpoint.brief) == (-4, 0, "It has expired.")
    assert (gone.days, gone.bar) == (None, 0)
    assert (near.days, near.bar) == (2, 2)


@pytest.mark.usefixtures("well")
def test_a_certificate_in_trouble_is_told_once_by_its_alert(now: datetime) -> None:
    endpoint("portal", "invalid", -3)
    alert("portal:443")
    assert sentences(now) == ["1 critical alert waits for a person."]


def test_only_the_worst_endpoints_are_listed_and_the_rest_is_counted(now: datetime) -> None:
    Endpoint.objects.bulk_create(Endpoint(host=f"h{n}") for n in range(60))
    certificates = certificate_panels.read(now)
    assert (len(certificates.rows), certificates.rest, certificates.total) == (50, 10, 60)


@pytest.mark.usefixtures("well")
def test_recent_failures_are_trouble_and_old_ones_are_only_listed(now: datetime) -> None:
    for hours in (0, 5):
        TaskFailure.objects.create(task="t", kind="error", at=now - timedelta(hours=hours))
    (failures,) = [p.data for p in board_data.read(now).parts if p.panel.name == "failures"]
    assert len(failures) == 2
    assert sentences(now) == ["1 task failed in the last hour."]


@pytest.mark.usefixtures("well")
def test_mail_that_does_not_get_out_is_trouble(now: datetime) -> None:
    mail("old", "failed", created_at=now - timedelta(days=3), next_try_at=None)
    mail("forgotten", "failed", created_at=now - timedelta(days=8), next_try_at=None)
    mail("refused", "failed", last_error="550", next_try_at=None)
    mail("late", "expired", next_try_at=None)
    mail("waiting", "queued", last_error="connection refused")
    mail("fresh", "queued")
    mail("done", "sent", sent_at=now, next_try_at=None)
    found = mail_panels.read(now)
    assert {one.subject for one in found.unsent} == {"old", "refused", "late", "waiting"}
    assert [one.subject for one in found.sent] == ["done"]
    assert (found.counts.waiting, found.counts.failed, found.counts.expired) == (2, 1, 1)
    assert sentences(now) == [
        "1 mail refused since yesterday.",
        "1 mail expired since yesterday.",
        "1 mail could not be sent yet.",
    ]


@pytest.mark.usefixtures("well")
def test_a_relay_that_is_down_is_told_once(browser: Client, now: datetime) -> None:
    Relay.objects.update_or_create(
        pk=1, defaults={"down_since": now - timedelta(minutes=12), "last_error": "<b>refused</b>"}
    )
    mail("waiting", "queued", last_error="connection refused")
    assert sentences(now) == ["The mail relay has been down for 12\xa0minutes: 1 mail waits."]
    page = browser.get("/", secure=True).content.decode()
    assert "The relay has been down since" in page
    assert "&lt;b&gt;refused" in page


# --- Alerts -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("well")
def test_only_what_waits_for_a_person_is_trouble(now: datetime) -> None:
    alert("known", "acknowledged", acknowledged_by="ann")
    alert("known to flap", "flapping", acknowledged_by="ann", acknowledged_at=now)
    alert("hushed", "suppressed")
    alert("perhaps", "pending")
    alert("mild", severity="info")
    assert sentences(now) == []
    alert("warm", severity="warning")
    assert board_data.read(now).tone == "warn"
    alert("hot")
    alert("hot and cold", "flapping")
    headline = board_data.read(now)
    assert headline.tone == "bad"
    assert [problem.text for problem in headline.problems] == [
        "2 critical alerts wait for a person.",
        "1 warning alert waits for a person.",
    ]


def test_the_board_lists_the_ten_worst_the_unacknowledged_first(now: datetime) -> None:
    alert("known", "acknowledged", hours=50)
    alert("mild", severity="info", hours=9)
    alert("hushed", "suppressed", hours=60)
    for n in range(9):
        alert(f"warm {n}", severity="warning", hours=20 - n)
    alert("hot", hours=2)
    alerts = alert_panels.read(now)
    names = [row.alert.subject.name for row in alerts.rows]
    assert names == ["hot", *(f"warm {n}" for n in range(9))]
    assert [(c.label, c.count, c.waiting) for c in alerts.counts] == [
        ("critical", 2, 1),
        ("warning", 9, 9),
        ("info", 1, 1),
    ]
    assert (alerts.total, alerts.suppressed) == (12, 1)
    Alert.objects.filter(subject__name__startswith="warm").delete()
    names = [row.alert.subject.name for row in alert_panels.read(now).rows]
    assert names == ["hot", "mild", "known"]


def test_an_alert_is_acknowledged_from_the_board(browser: Client) -> None:
    hot = alert("hot")
    page = browser.get("/", secure=True).content.decode()
    assert f'form="acknowledge" name="alert" value="{hot.pk}"' in page
    data = {"action": "acknowledge", "alert": hot.pk, "back": "/"}
    page = browser.post("/alerts/operate/", data, secure=True, follow=True).content.decode()
    assert "1 alert was acknowledged." in page
    assert 'form="acknowledge" name="alert"' not in page


def test_the_sparkline_keeps_the_highest_of_each_minute_and_shows_gaps(now: datetime) -> None:
    points = [
        (now - timedelta(seconds=seconds), depth)
        for seconds, depth in ((3590, 4), (600, 0), (540, 8), (525, 2), (0, 8))
    ]
    path = "M0 19.0h0 M100 31.0h0 L102 7.0 M120 7.0h0"
    assert sparkline(now, points, 10) == path
    assert sparkline(now, [], 10) == ""


# --- Beat ---------------------------------------------------------------------------------------


def beat(name: str, now: datetime, **values: Any) -> Instance:
    defaults = {"leader": False, "lag": 0, "schedules": 5, "published": 0, "lost": 0}
    times = {"started_at": now, "ticked_at": now}
    return Instance.objects.create(name=name, **times | defaults | values)


@pytest.mark.usefixtures("well")
def test_the_beats_are_shown_the_leader_first(browser: Client, now: datetime) -> None:
    beat("aside", now)
    beat("first", now, leader=True, lag=0.24, lost=2)
    beat("gone", now, ticked_at=now - timedelta(minutes=5))
    for seconds, lag in ((3590, 4), (600, 0), (0, 7)):
        LagSample.objects.create(at=now - timedelta(seconds=seconds), lag=lag, published=1)
    beats = core_panels.read_beat(now)
    assert [instance.name for instance in beats.instances] == ["first", "aside"]
    assert (beats.leader.name, beats.highest) == ("first", 7)
    assert beats.line == "M0 13.9h0 M100 31.0h0 M120 1.0h0"
    assert sentences(now) == []
    page = html_of(browser.get("/", secure=True))
    assert "leads 5 schedules, lag 0.2 s" in page
    assert "2 runs lost" in page


@pytest.mark.usefixtures("well")
def test_beats_without_a_leader_and_a_late_leader_are_trouble(now: datetime) -> None:
    only = beat("only", now)
    assert sentences(now) == ["No beat leads: no schedule runs."]
    only.leader, only.lag = True, 31.2
    only.save()
    assert sentences(now) == ["Beat starts its schedules 31 s late."]


@pytest.mark.usefixtures("well")
def test_a_broker_that_takes_nothing_is_named_before_what_follows_from_it(now: datetime) -> None:
    beat("only", now, leader=True, lag=90, blocked_since=now - timedelta(seconds=90))
    first, *others = sentences(now)
    assert first.startswith("RabbitMQ has taken no messages for 90 s")
    assert "disk or memory alarm" in first
    assert others == ["Beat starts its schedules 90 s late."]


# --- Next runs ----------------------------------------------------------------------------------


def test_next_run_of_an_interval_looks_past_a_last_run_that_beat_saved_long_ago(
    now: datetime,
) -> None:
    interval = IntervalSchedule.objects.create(every=30, period="seconds")
    schedule = PeriodicTask(
        name="n", interval=interval, last_run_at=now - timedelta(seconds=100), enabled=True
    )
    assert next_run(schedule, now) == now + timedelta(seconds=20)


def test_next_run_of_a_crontab_is_the_next_full_match(now: datetime) -> None:
    housekeeping = PeriodicTask.objects.get(name="housekeeping")
    at = next_run(housekeeping, now)
    assert at is not None
    assert at > now
    assert f"{timezone.localtime(at):%H:%M:%S}" == "03:20:00"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"enabled": False}, None),
        ({"expires": timezone.now() - timedelta(1)}, None),
    ],
)
def test_no_next_run(now: datetime, values: dict[str, object], expected: None) -> None:
    schedule = PeriodicTask.objects.get(name="housekeeping")
    vars(schedule).update(values)
    assert next_run(schedule, now) is expected


def test_requested_runs_are_not_among_the_next_runs(now: datetime) -> None:
    request_run("x" * 300, "soc.core.tasks.keep_house", "ann")
    beat = core_panels.read_beat(now)
    assert [run.at for run in beat.runs] == sorted(run.at for run in beat.runs)
    assert not any(run.name.startswith("now: ") for run in beat.runs)


# --- Pages --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/board/live/", "/admin/", "/admin/core/heartbeat/"])
def test_pages_need_a_sign_in(path: str) -> None:
    response = Client().get(path, secure=True, follow=True)
    assert urlsplit(response.redirect_chain[-1][0]).path == "/sign-in/"


def test_a_wrong_password_is_answered_with_an_error(browser: Client) -> None:
    response = Client().post("/sign-in/", {"username": "ann", "password": "no"}, secure=True)
    assert 'role="alert"' in response.content.decode()


def test_a_person_without_access_is_told_why(browser: Client) -> None:
    client = Client()
    client.force_login(User.objects.create_user("bob"))
    page = client.get("/admin/", secure=True, follow=True).content.decode()
    assert "You are signed in as bob" in page


@pytest.mark.usefixtures("well")
def test_the_page_and_its_live_part_show_every_section(browser: Client) -> None:
    endpoint("<b>portal</b>", "invalid", 3, reason="<script>alert(1)</script>")
    TaskFailure.objects.create(task="t", kind="error", error="<i>boom</i>")
    mail("hello", "sent", sent_at=timezone.now())
    page = browser.get("/", secure=True).content.decode()
    live = browser.get("/board/live/", secure=True).content.decode()
    assert "<html" in page
    assert "<html" not in live
    for text in (page, live):
        for anchor in ("alerts", "queues", "certificates", "beat", "failures", "mail"):
            assert f'id="{anchor}"' in text
        assert "&lt;b&gt;portal" in text
        assert "<script>alert" not in text
        assert "<i>boom" not in text


@pytest.mark.usefixtures("well")
@pytest.mark.parametrize("path", ["/", "/sign-in/"])
def test_pages_hold_no_inline_script_or_style(browser: Client, path: str) -> None:
    endpoint("portal", "invalid", 3)
    page = browser.get(path, secure=True).content.decode()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:", page)
    assert not re.search(r"(src|href)=\"https?://(?!localhost)", page)


@pytest.mark.usefixtures("well")
def test_a_person_without_the_admin_gets_no_links_to_it(browser: Client) -> None:
    endpoint("portal", "invalid", 3)
    client = Client()
    client.force_login(User.objects.create_user("bob"))
    assert "/admin/" not in client.get("/", secure=True).content.decode()


def signed_in(name: str, *roles: str) -> Client:
    user = User.objects.create_user(name)
    user.groups.set(Group.objects.filter(name__in=roles))
    client = Client()
    client.force_login(user)
    return client


@pytest.mark.usefixtures("well")
def test_a_viewer_is_linked_to_the_pages_that_he_may_open(now: datetime) -> None:
    portal = endpoint("portal", "invalid", 3, reason="It has expired.")
    viewer = signed_in("vic", "Viewers")
    page = viewer.get("/", secure=True).content.decode()
    link = f"/certificates/{portal.pk}/"
    assert f'href="{link}"' in page
    assert "It has expired." in page
    assert viewer.get(link, secure=True).status_code == 200


@pytest.mark.usefixtures("well")
def test_the_board_shows_an_account_nothing_that_its_pages_refuse(now: datetime) -> None:
    endpoint("portal", "invalid", 3, reason="It has expired.")
    alert("an alert's target")
    TaskFailure.objects.create(task="t", kind="error", error="boom", at=now)
    mail("a mail's subject", "failed", last_error="550")
    nobody = signed_in("bob")
    for path in ("/certificates/", "/alerts/", "/robots/"):
        assert nobody.get(path, secure=True).status_code == 403
    page = nobody.get("/", secure=True).content.decode()
    for text in ("portal", "It has expired.", "target", "boom", "subject", "a@b.test"):
        assert text not in page
    assert "1 task failed in the last hour." in page


@pytest.mark.usefixtures("well")
def test_the_board_and_the_page_show_an_endpoint_alike(browser: Client, now: datetime) -> None:
    endpoint("portal", "critical", 1, reason="It expires in a day.")
    for path in ("/", "/certificates/"):
        page = browser.get(path, secure=True).content.decode()
        assert page.count("It expires in a day.") == 1, path


def test_the_number_of_queries_does_not_depend_on_the_rows(
    browser: Client, now: datetime, django_assert_num_queries: Callable[[int], object]
) -> None:
    queries = 26
    with django_assert_num_queries(queries):
        browser.get("/board/live/", secure=True)
    for n in range(40):
        endpoint(f"host{n}", "warning", n)
        TaskFailure.objects.create(task="t", kind="error", at=now)
        mail(f"sent {n}", "sent", sent_at=now)
        mail(f"failed {n}", "failed")
        Heartbeat.objects.create(service="worker-email", instance=str(n), seen_at=now)
        QueueSample.objects.create(queue="email", at=now, depth=n, consumers=1, dead=0)
        AlertEvent.objects.create(
            alert=alert(f"subject {n}"), kind="fired", after="firing", severity=30, at=now
        )
        beat(f"beat {n}", now)
        LagSample.objects.create(at=now, lag=n, published=n)
        interval = IntervalSchedule.objects.create(every=n + 1, period="minutes")
        PeriodicTask.objects.create(name=f"s{n}", task="t", interval=interval)
    with django_assert_num_queries(queries):
        browser.get("/board/live/", secure=True)


def test_the_version_of_the_time_zones_is_shown(browser: Client, settings: Any) -> None:
    page = browser.get("/", secure=True).content.decode()
    assert times.zone_rules(settings.TIME_ZONE) in page
