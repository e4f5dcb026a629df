"""The admin: every page opens, and what its actions and forms do."""

import json
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django_celery_beat.models import ClockedSchedule, IntervalSchedule, PeriodicTask, SolarSchedule

from soc.core.models import Heartbeat, QueueSample, TaskFailure
from soc.notify.models import OutboundMail, Subscription
from soc.schedules.schedules import next_run
from soc.ssl_certs.models import Certificate, Endpoint, Observation
from soc.trust.models import Authority

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("plain_static_files")]

SCHEDULES = "/admin/django_celery_beat/periodictask/"
ENDPOINTS = "/admin/ssl_certs/endpoint/"
MAILS = "/admin/notify/outboundmail/"


@pytest.fixture
def endpoint() -> Endpoint:
    certificate = Certificate.objects.create(
        fingerprint="ab", subject="CN=portal", issuer="CN=An authority", san=["portal", "www"],
        not_after=timezone.now(),
    )  # fmt: skip
    return Endpoint.objects.create(host="portal", status="critical", certificate=certificate)


@pytest.fixture
def mail() -> OutboundMail:
    return OutboundMail.objects.create(
        dedupe_key="k", recipients=["a@b.test"], subject="s", text="t", html='<p title="x">hi</p>',
        state="failed", next_try_at=timezone.now() + timezone.timedelta(days=1),
    )  # fmt: skip


def act(browser: Client, path: str, action: str, *rows: Any) -> str:
    """Run an admin action on rows and return the page that follows."""
    data = {"action": action, "_selected_action": [row.pk for row in rows]}
    return browser.post(path, data, secure=True, follow=True).content.decode()


def requests() -> list[PeriodicTask]:
    return list(PeriodicTask.objects.filter(name__startswith="now: "))


def test_every_list_and_every_row_opens(
    browser: Client, endpoint: Endpoint, mail: OutboundMail
) -> None:
    Observation.objects.create(endpoint=endpoint, outcome="valid")
    Authority.objects.create(name="a", pem="x")
    Subscription.objects.create(name="s", recipients="a@b.test")
    Heartbeat.objects.create(service="beat", instance="i", seen_at=timezone.now())
    QueueSample.objects.create(queue="email", depth=1, consumers=1, dead=0)
    TaskFailure.objects.create(task="t", kind="error", traceback="<b>x</b>")
    ClockedSchedule.objects.create(clocked_time=timezone.now())
    for model, page in admin.site._registry.items():
        base = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        assert browser.get(reverse(f"{base}_changelist"), secure=True).status_code == 200, model
        if page.search_fields:
            found = browser.get(reverse(f"{base}_changelist"), {"q": "a"}, secure=True)
            assert found.status_code == 200, model
        for row in model._default_manager.all()[:1]:
            shown = browser.get(reverse(f"{base}_change", args=[row.pk]), secure=True)
            assert shown.status_code == 200, model


def test_a_schedule_may_follow_the_sun(browser: Client) -> None:
    solar = SolarSchedule.objects.create(event="sunset", latitude=49.2, longitude=-123.1)
    schedule = PeriodicTask.objects.create(
        name="dusk", task="soc.core.tasks.keep_house", solar=solar, expire_seconds=60
    )
    page = browser.get(SCHEDULES, secure=True).content.decode()
    assert "sunset" in page.lower()
    assert next_run(schedule, timezone.now()) > timezone.now()


@pytest.mark.parametrize("model", [Heartbeat, QueueSample, TaskFailure, Certificate, Observation])
def test_what_the_stack_writes_is_read_only(browser: Client, model: Any) -> None:
    add = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_add")
    assert browser.get(add, secure=True).status_code == 403


def test_the_menu_shows_only_what_a_person_may_see() -> None:
    user = User.objects.create_user("bob", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_endpoint"))
    client = Client()
    client.force_login(user)
    page = client.get(ENDPOINTS, secure=True).content.decode()
    assert "Endpoints" in page
    assert SCHEDULES not in page
    assert "Subscriptions" not in page


# --- Schedules ----------------------------------------------------------------------------------


def test_the_schedules_show_their_next_run_and_hide_requested_runs(browser: Client) -> None:
    act(browser, SCHEDULES, "run_now", PeriodicTask.objects.get(name="housekeeping"))
    plain = browser.get(SCHEDULES, secure=True).content.decode()
    assert "03:20:00" in plain
    assert "every 30 seconds" in plain
    assert "now: housekeeping" not in plain
    asked = browser.get(SCHEDULES, {"kind": "requests"}, secure=True).content.decode()
    assert "now: housekeeping" in asked
    both = browser.get(SCHEDULES, {"kind": "all"}, secure=True).content.decode()
    assert "now: housekeeping" in both
    assert "every 30 seconds" in both


def test_run_now_asks_beat_and_not_the_broker(browser: Client) -> None:
    interval = IntervalSchedule.objects.create(every=1, period="days")
    schedule = PeriodicTask.objects.create(
        name="one endpoint", task="soc.ssl_certs.tasks.scan_endpoint", args="[7]", kwargs="{}",
        queue="ssl_certs", interval=interval,
    )  # fmt: skip
    assert "Beat will start it within 5 s" in act(browser, SCHEDULES, "run_now", schedule)
    (request,) = requests()
    assert (request.task, request.args, request.queue) == (schedule.task, "[7]", "ssl_certs")
    assert request.one_off
    assert request.clocked.clocked_time <= timezone.now()
    assert request.description == "Requested by ann."


def test_run_now_of_a_task_without_a_queue_says_so(browser: Client) -> None:
    interval = IntervalSchedule.objects.create(every=1, period="days")
    foreign = PeriodicTask.objects.create(name="f", task="celery.ping", interval=interval)
    assert "has no queue" in act(browser, SCHEDULES, "run_now", foreign)
    assert requests() == []


def test_the_stock_action_that_publishes_is_gone(browser: Client) -> None:
    page = browser.get(SCHEDULES, secure=True).content.decode()
    assert 'value="run_now"' in page
    assert 'value="run_tasks"' not in page


def test_disable_and_enable(browser: Client) -> None:
    schedule = PeriodicTask.objects.get(name="housekeeping")
    act(browser, SCHEDULES, "disable", schedule)
    schedule.refresh_from_db()
    assert not schedule.enabled
    act(browser, SCHEDULES, "enable", schedule)
    schedule.refresh_from_db()
    assert schedule.enabled


def schedule_form(**values: Any) -> dict[str, Any]:
    interval = IntervalSchedule.objects.create(every=5, period="minutes")
    return {
        **{"name": "mine", "description": "", "enabled": "on", "interval": interval.pk},
        **{"task": "soc.ssl_certs.tasks.scan_endpoint", "queue": "ssl_certs"},
        **{"args": "[]", "kwargs": json.dumps({"key": 1}), "expire_seconds": "60"},
        **{"beat_options-TOTAL_FORMS": "1", "beat_options-INITIAL_FORMS": "0"},
        **{"beat_options-0-missed": "once", "beat_options-0-delivery": "at_least_once"},
        **values,
    }


def test_a_good_schedule_is_saved(browser: Client) -> None:
    browser.post(SCHEDULES + "add/", schedule_form(), secure=True)
    schedule = PeriodicTask.objects.get(name="mine")
    assert schedule.expire_seconds == 60
    assert schedule.beat_options.missed == "once"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"expire_seconds": ""}, "has no expiry"),
        ({"queue": "nowhere"}, "Select a valid choice. nowhere"),
        ({"task": "os.system"}, "Select a valid choice. os.system"),
        ({"kwargs": "{}"}, "does not take"),
        ({"kwargs": '{"key": 1, "other": 2}'}, "does not take"),
        ({"kwargs": "{"}, "does not take"),
        ({"kwargs": "[1]"}, "does not take"),
        ({"interval": ""}, "must be set"),
        ({"expires_0": "2030-01-01", "expires_1": "00:00"}, "not both"),
    ],
)
def test_a_bad_schedule_is_refused_at_the_form(
    browser: Client, values: dict[str, str], message: str
) -> None:
    page = browser.post(SCHEDULES + "add/", schedule_form(**values), secure=True)
    assert page.status_code == 200
    assert message in page.content.decode()
    assert not PeriodicTask.objects.filter(name="mine").exists()


# --- Endpoints ----------------------------------------------------------------------------------


def test_the_endpoint_list_does_not_query_per_row(
    browser: Client, endpoint: Endpoint, django_assert_max_num_queries: Any
) -> None:
    Endpoint.objects.bulk_create(
        Endpoint(host=f"h{n}", certificate=endpoint.certificate) for n in range(60)
    )
    with django_assert_max_num_queries(12):
        browser.get(ENDPOINTS, secure=True)


def test_scan_now_of_a_few_endpoints_requests_each(browser: Client, endpoint: Endpoint) -> None:
    other = Endpoint.objects.create(host="o" * 250)
    assert "Scans requested: 2." in act(browser, ENDPOINTS, "scan_selected", endpoint, other)
    assert {(one.task, one.kwargs) for one in requests()} == {
        ("soc.ssl_certs.tasks.scan_endpoint", json.dumps({"key": row.pk}))
        for row in (endpoint, other)
    }


def test_scan_now_of_many_endpoints_makes_them_due(browser: Client) -> None:
    later = timezone.now() + timezone.timedelta(hours=1)
    Endpoint.objects.bulk_create(Endpoint(host=f"h{n}", next_scan_at=later) for n in range(51))
    page = act(browser, ENDPOINTS, "scan_selected", *Endpoint.objects.all())
    assert "51 endpoints are due now" in page
    assert requests() == []
    assert not Endpoint.objects.filter(next_scan_at__gt=timezone.now()).exists()


def endpoint_form(endpoint: Endpoint, **values: Any) -> dict[str, Any]:
    return {
        **{"host": endpoint.host, "port": 8443, "starttls": "", "enabled": "on"},
        **{"interval_minutes": 60, "check_lists": "on"},
        **{"observations-TOTAL_FORMS": 0, "observations-INITIAL_FORMS": 0},
        **values,
    }


def test_save_and_scan_now_saves_and_requests_a_scan(browser: Client, endpoint: Endpoint) -> None:
    form = endpoint_form(endpoint, ssl_certs_endpoint_scan_now="on")
    path = reverse("admin:ssl_certs_endpoint_change", args=[endpoint.pk])
    page = browser.post(path, form, secure=True, follow=True).content.decode()
    assert "beat will start it within 5 s" in page
    endpoint.refresh_from_db()
    assert endpoint.port == 8443
    assert [json.loads(one.kwargs) for one in requests()] == [{"key": endpoint.pk}]


def test_the_endpoint_page_shows_its_certificate_and_its_last_scans(
    browser: Client, endpoint: Endpoint
) -> None:
    for n in range(25):
        Observation.objects.create(endpoint=endpoint, outcome="valid", detail=f"scan-{n:02}")
    path = reverse("admin:ssl_certs_endpoint_change", args=[endpoint.pk])
    page = browser.get(path, secure=True).content.decode()
    assert "CN=An authority" in page
    assert "<li>www</li>" in page
    assert sum(f"scan-{n:02}" in page for n in range(25)) == 20


def test_who_may_only_look_cannot_scan(endpoint: Endpoint) -> None:
    user = User.objects.create_user("bob", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_endpoint"))
    client = Client()
    client.force_login(user)
    act(client, ENDPOINTS, "scan_selected", endpoint)
    path = reverse("admin:ssl_certs_endpoint_change", args=[endpoint.pk])
    form = endpoint_form(endpoint, ssl_certs_endpoint_scan_now="on")
    assert client.post(path, form, secure=True).status_code == 403
    assert requests() == []


# --- Mail ---------------------------------------------------------------------------------------


def test_a_mail_is_shown_in_a_frame_that_may_do_nothing(
    browser: Client, mail: OutboundMail
) -> None:
    path = reverse("admin:notify_outboundmail_change", args=[mail.pk])
    page = browser.get(path, secure=True).content.decode()
    assert 'sandbox=""' in page
    assert 'srcdoc="&lt;p title=&quot;x&quot;&gt;hi&lt;/p&gt;"' in page


def test_try_again_makes_a_failed_mail_due(browser: Client, mail: OutboundMail) -> None:
    sent = OutboundMail.objects.create(dedupe_key="sent", recipients=[], state="sent")
    assert "1 mails are due now" in act(browser, MAILS, "try_again", mail, sent)
    mail.refresh_from_db()
    sent.refresh_from_db()
    assert (mail.state, sent.state) == ("queued", "sent")
    assert mail.next_try_at <= timezone.now()


def test_a_subscription_is_previewed_with_its_own_texts(browser: Client) -> None:
    subscription = Subscription.objects.create(
        name="s", recipients="a@b.test", tags="SOC", subject_template="Look: {{ title }}",
        text_template="<b>{{ summary }}</b>",
    )  # fmt: skip
    path = reverse("admin:notify_subscription_preview", args=[subscription.pk])
    page = browser.get(path, secure=True).content.decode()
    assert "[SOC] Look: Certificate of" in page
    assert "&lt;b&gt;This is what a notice looks like.&lt;/b&gt;" in page
    assert 'srcdoc="&lt;!doctype html&gt;' in page
    assert "&lt;html lang=&quot;en&quot;&gt;" in page
