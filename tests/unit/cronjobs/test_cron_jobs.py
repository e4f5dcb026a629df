"""Jobs elsewhere: their addresses, and what is reported when they are silent."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import reverse

from mailing import Clock
from soc.alerts.models import OPEN, Alert
from soc.common.logs import HideSecrets
from soc.core.severity import Severity
from soc.cronjobs import conditions, pings
from soc.cronjobs.models import CronJob
from soc.cronjobs.pages import JobRow

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("plain_static_files")]

Make = Callable[..., tuple[CronJob, str]]


@pytest.fixture
def make(clock: Clock) -> Make:
    """Make a job that runs each hour; return it with the path of its address."""

    def job(name: str = "backup of db1", **values: Any) -> tuple[CronJob, str]:
        new = CronJob(**{"name": name, "period": 60, "grace": 10, "created_at": clock.now} | values)
        address = pings.renew(new)
        new.save()
        return new, address.partition("8443")[2]

    return job


def ask(path: str, method: str = "get", body: str = "") -> int:
    client = Client(enforce_csrf_checks=True)
    if method == "post":
        return client.post(path, body, "text/plain", secure=True).status_code
    return getattr(client, method)(path, secure=True).status_code


def states() -> list[tuple[str, str]]:
    return list(Alert.objects.order_by("pk").values_list("subject__name", "state"))


@pytest.mark.parametrize("method", ["get", "head", "post"])
def test_a_job_is_heard_of_by_its_address_alone(make: Make, clock: Clock, method: str) -> None:
    job, path = make()
    clock.move(minutes=30)
    assert ask(path, method) == 200
    job.refresh_from_db()
    assert (job.last_ping_at, job.last_ping_from, job.failed) == (clock.now, "127.0.0.1", False)


def test_silence_beyond_period_and_grace_raises_an_alert_and_the_next_run_ends_it(
    make: Make, clock: Clock
) -> None:
    _, path = make(severity=Severity.WARNING, site="north")
    ask(path)
    clock.move(minutes=69, seconds=59)
    conditions.watch(clock.now)
    assert states() == []
    clock.move(seconds=1)
    conditions.watch(clock.now)
    alert = Alert.objects.get()
    assert str(alert) == "cronjobs/ran: backup of db1"
    assert (alert.severity, alert.site) == (Severity.WARNING, "north")
    assert alert.summary == "It has not run for 1 h 10 min."
    assert alert.facts["Grace"] == "10 min"
    clock.move(seconds=1)
    ask(path)
    assert states() == [("backup of db1", "resolved")]


def test_a_job_that_has_never_run_is_missed_too(make: Make, clock: Clock) -> None:
    make()
    clock.move(minutes=70)
    conditions.watch(clock.now)
    assert Alert.objects.get().summary == "It has not run since it was entered 1 h 10 min ago."


@pytest.mark.parametrize(
    ("outcome", "status", "failed"),
    [
        ("", 200, False),
        ("/0", 200, False),
        ("/1", 200, True),
        ("/255", 200, True),
        ("/fail", 200, True),
        ("/start", 404, None),
        ("/-1", 404, None),
        ("/\u0663", 404, None),
    ],
)
def test_a_job_says_how_it_ended(
    make: Make, outcome: str, status: int, failed: bool | None
) -> None:
    job, path = make()
    assert ask(path + outcome, "post", "disk full") == status
    job.refresh_from_db()
    assert job.failed is bool(failed)
    assert (job.last_ping_at is None) is (failed is None)


def test_a_failed_run_is_an_alert_with_its_words_at_once(make: Make, clock: Clock) -> None:
    _, path = make()
    ask(f"{path}/1", "post", "tar: disk full\x00\n" + "x" * 100_000)
    alert = Alert.objects.get()
    assert (alert.summary, alert.state) == ("Its last run failed.", "firing")
    assert alert.facts["It said"].startswith("tar: disk full")
    clock.move(minutes=1)
    ask(path)
    assert states() == [("backup of db1", "resolved")]


def test_only_the_digest_is_kept_and_another_address_revokes_the_first(make: Make) -> None:
    job, path = make()
    secret = path.removeprefix("/ping/")
    assert secret.startswith("soc_")
    assert secret not in str(CronJob.objects.values())
    pings.renew(job)
    job.save()
    assert ask(path) == 404


def test_a_disabled_job_has_no_address_and_no_alert(make: Make, clock: Clock) -> None:
    _, path = make()
    clock.move(hours=2)
    conditions.watch(clock.now)
    CronJob.objects.update(enabled=False)
    conditions.watch(clock.now)
    assert states() == [("backup of db1", "resolved")]
    assert ask(path) == 404


def test_a_deleted_or_renamed_job_leaves_no_alert_open(make: Make, clock: Clock) -> None:
    make()
    clock.move(hours=2)
    conditions.watch(clock.now)
    CronJob.objects.update(name="other")
    clock.move(seconds=1)
    conditions.watch(clock.now)
    assert states() == [("backup of db1", "resolved"), ("other", "firing")]
    CronJob.objects.all().delete()
    conditions.watch(clock.now)
    assert not Alert.objects.filter(OPEN).exists()


def test_who_guesses_is_locked_out_and_the_jobs_are_not(make: Make) -> None:
    _, path = make()
    answers = [ask(f"/ping/soc_{number}") for number in range(8)]
    assert answers[0] == 404
    assert answers[-1] == 429
    assert ask(path) == 200


def test_a_thousand_jobs_are_watched_in_few_statements(
    make: Make, clock: Clock, django_assert_max_num_queries: Any
) -> None:
    for number in range(1000):
        make(f"job {number}", last_ping_at=clock.now)
    conditions.watch(clock.now)
    clock.move(minutes=1)
    with django_assert_max_num_queries(20):
        conditions.watch(clock.now)


@pytest.mark.parametrize(
    ("minutes", "values", "state"),
    [
        (5, {}, "new"),
        (5, {"last": 0}, "ran"),
        (65, {"last": 0}, "within its grace"),
        (70, {"last": 0}, "missing"),
        (5, {"last": 0, "failed": True}, "failed"),
        (5, {"enabled": False}, "disabled"),
    ],
)
def test_the_list_says_how_a_job_is(
    make: Make, clock: Clock, minutes: int, values: dict[str, Any], state: str
) -> None:
    if values.pop("last", None) is not None:
        values["last_ping_at"] = clock.now
    job, _ = make(**values)
    assert JobRow(job, clock.now + timedelta(minutes=minutes)).state == state


def test_the_page_is_for_viewers_and_shows_the_worst_first(
    make: Make, clock: Clock, browser: Client
) -> None:
    make("a", last_ping_at=clock.now)
    make("b", last_ping_at=clock.now - timedelta(days=1))
    page = browser.get(reverse("cronjobs"), secure=True).content.decode()
    assert page.index(">b</a>") < page.index(">a</a>")
    user = User.objects.create_user("viewer")
    viewer = Client()
    viewer.force_login(user)
    assert viewer.get(reverse("cronjobs"), secure=True).status_code == 403
    user.groups.add(Group.objects.get(name="Viewers"))
    for path in ("/cronjobs/", "/cronjobs/live/"):
        assert viewer.get(path, secure=True).status_code == 200
    assert "admin/cronjobs" not in viewer.get("/cronjobs/", secure=True).content.decode()


def test_the_admin_shows_an_address_once(browser: Client) -> None:
    form = {
        "name": "backup",
        "enabled": "on",
        "period": 60,
        "grace": 5,
        "severity": Severity.CRITICAL.value,
    }
    page = browser.post("/admin/cronjobs/cronjob/add/", form, secure=True)
    found = re.search(r"/ping/(soc_[\w-]+)", page.content.decode())
    assert found, page.content.decode()[:2000]
    assert page["Cache-Control"].startswith("no-store")
    job = CronJob.objects.get()
    assert pings.of_secret(found[1]) == job
    change = f"/admin/cronjobs/cronjob/{job.pk}/change/"
    assert found[1] not in browser.get(change, secure=True).content.decode()
    other = reverse("admin:cronjobs_cronjob_new_address", args=[job.pk])
    assert browser.get(other, secure=True).status_code == 200
    assert pings.of_secret(found[1]) == job
    given = browser.post(other, secure=True).content.decode()
    assert pings.of_secret(found[1]) is None
    again = re.search(r"/ping/(soc_[\w-]+)", given)
    assert again
    assert pings.of_secret(again[1]) == job


@pytest.mark.parametrize(
    "text",
    [
        "Service Unavailable: /ping/soc_abc/1",
        "Gone: /acknowledge/0f5c9a52/soc_abc/",
        "Forbidden (CSRF cookie not set.): /acknowledge/x/soc_abc/",
    ],
)
def test_no_log_holds_an_addresss_secret(text: str) -> None:
    """Django logs the path of what it refuses."""
    record = logging.LogRecord("django.request", logging.WARNING, "", 0, "%s", (text,), None)
    assert HideSecrets().filter(record)
    assert "soc_abc" not in record.getMessage()
    assert "(not shown)" in record.getMessage()
