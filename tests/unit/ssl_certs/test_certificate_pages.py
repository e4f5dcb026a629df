"""The certificates' pages: what they show, who may see it, and that their cost is fixed."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import Group as Role
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from django_celery_beat.models import PeriodicTask
from icalendar import Calendar

from harness import html_of
from soc.core import tokens
from soc.ssl_certs import picture, strips
from soc.ssl_certs.models import Certificate, Change, Endpoint, Observation, Verification
from soc.trust.models import Authority

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("plain_static_files")]

DAY = timedelta(days=1)
CALENDAR = "/certificates/calendar.ics"


def member_of(role: str) -> Client:
    user = User.objects.create_user(f"a member of {role}")
    user.groups.add(Role.objects.get(name=role))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def operator() -> Client:
    return member_of("Operators")


@pytest.fixture
def viewer() -> Client:
    return member_of("Viewers")


def certificate(name: str, days: float = 100, **values: Any) -> Certificate:
    now = timezone.now()
    values = {"subject": f"CN={name}", "issuer": "CN=An authority", "san": [name], **values}
    return Certificate.objects.create(
        fingerprint=name.upper().ljust(64, "0")[:64],
        not_before=now - DAY,
        not_after=now + days * DAY,
        **values,
    )


def endpoint(name: str, status: str = "ok", days: float = 100, **values: Any) -> Endpoint:
    leaf = certificate(name, days)
    values = {"certificate": leaf, "chain": [leaf.pk], "status": status, **values}
    return Endpoint.objects.create(host=name, **values)


def text(client: Client, path: str) -> str:
    answer = client.get(path, secure=True)
    assert answer.status_code == 200, answer
    return html_of(answer)


def test_the_list_begins_with_the_worst(viewer: Client) -> None:
    endpoint("fine")
    endpoint("late", "error", 3)
    endpoint("broken", "invalid", 50, reason="It is self-signed.")
    endpoint("unused", "invalid", enabled=False)
    page = text(viewer, "/certificates/")
    assert page.index("broken:443") < page.index("late:443") < page.index("fine:443")
    assert "3 endpoints, 2 failing" in page
    assert "It is self-signed." in page
    assert "unused" not in page


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("?status=error", ["late"]),
        ("?q=autho%20lat", ["late"]),
        ("?protocol=smtp", ["mail"]),
        ("?protocol=tls", ["late", "fine"]),
        ("?authority=system", ["late", "fine"]),
        ("?authority=site+CA", ["mail"]),
        ("?group=nowhere", []),
    ],
)
def test_the_list_is_filtered(viewer: Client, query: str, found: list[str]) -> None:
    endpoint("fine")
    endpoint("late", "error", 3)
    endpoint("mail", starttls="smtp", authority=Authority.objects.create(name="site CA"))
    page = text(viewer, f"/certificates/{query}")
    assert [name for name in ("late", "fine", "mail") if f"{name}:443</a>" in page] == found


@pytest.mark.parametrize("rows", [3, 240])
def test_the_number_of_queries_does_not_depend_on_the_rows(
    viewer: Client, rows: int, django_assert_num_queries: Any
) -> None:
    leaf = certificate("shared")
    watched = Endpoint.objects.bulk_create(
        Endpoint(host=f"h{n}", certificate=leaf, chain=[leaf.pk], status="ok") for n in range(rows)
    )
    now = timezone.now()
    Observation.objects.bulk_create(
        Observation(endpoint=one, at=now - n * DAY, status="ok", outcome="valid")
        for one in watched
        for n in range(3)
    )
    # Session, user, permissions of the user and of groups; counts, rows, strips, the picture.
    with django_assert_num_queries(8):
        viewer.get("/certificates/live/", secure=True)


@pytest.mark.parametrize("rows", [1, 40])
def test_one_endpoint_takes_a_fixed_number_of_queries(
    viewer: Client, rows: int, django_assert_num_queries: Any
) -> None:
    one = endpoint("portal")
    other = certificate("older")
    Change.objects.bulk_create(
        Change(endpoint=one, kind="renewed", before=other, after=one.certificate)
        for _ in range(rows)
    )
    Observation.objects.bulk_create(Observation(endpoint=one) for _ in range(rows))
    Verification.objects.bulk_create(Verification(endpoint=one) for _ in range(rows))
    with django_assert_num_queries(11):
        viewer.get(f"/certificates/{one.pk}/live/", secure=True)


def test_an_endpoints_page_names_the_certificate_at_fault(viewer: Client) -> None:
    middle = certificate("Case CA", -3, subject="CN=Case CA", san=[])
    one = endpoint("portal", "invalid", reason="The CA certificate (depth 1, CN=Case CA) expired.")
    Endpoint.objects.update(chain=[one.certificate.pk, middle.pk], fault_depth=1)
    page = text(viewer, f"/certificates/{one.pk}/")
    chain = page[page.index('<ol class="chain">') :]
    assert chain.index("Depth 0") < chain.index("Depth 1") < chain.index("at fault")
    assert "(depth 1, CN=Case CA) expired" in page


def test_another_certificate_of_the_same_name_is_told(viewer: Client) -> None:
    one = endpoint("a.node", server_name="portal.internal")
    other = endpoint("b.node", server_name="portal.internal", days=7)
    endpoint("c.node", server_name="portal.internal", enabled=False)
    page = text(viewer, f"/certificates/{one.pk}/")
    assert f'href="/certificates/{other.pk}/"' in page
    assert "c.node" not in page


def test_what_strangers_write_is_escaped(viewer: Client) -> None:
    one = endpoint("portal", "invalid", reason="<script>alert(1)</script>")
    Certificate.objects.update(subject="CN=<b>x</b>", san=["<i>y</i>"])
    for path in ("/certificates/", f"/certificates/{one.pk}/"):
        page = text(viewer, path)
        assert "<script>alert" not in page
        assert "<b>x</b>" not in page
        assert "<i>y</i>" not in page


def test_nothing_on_the_pages_is_inline(browser: Client) -> None:
    one = endpoint("portal", "warning", 20)
    for path in ("/certificates/", f"/certificates/{one.pk}/", "/certificates/import/"):
        page = text(browser, path)
        assert " style=" not in page
        assert not re.search(r"\son[a-z]+=", page)
        assert "<script>" not in page


# --- Verify renewal now -------------------------------------------------------------------------


def test_a_verification_is_asked_for_and_not_twice(operator: Client) -> None:
    one = endpoint("portal")
    for _ in range(2):
        operator.post(f"/certificates/{one.pk}/verify/", secure=True)
    asked = Verification.objects.get()
    assert (asked.before, asked.requested_by) == (one.certificate, "a member of Operators")
    run = PeriodicTask.objects.get(task="soc.ssl_certs.tasks.verify_renewal")
    assert json.loads(run.kwargs) == {"key": asked.pk}
    assert "Being verified…" in text(operator, f"/certificates/{one.pk}/")


def test_who_may_only_look_cannot_verify_or_import(viewer: Client) -> None:
    one = endpoint("portal")
    assert viewer.post(f"/certificates/{one.pk}/verify/", secure=True).status_code == 403
    assert viewer.get("/certificates/import/", secure=True).status_code == 403
    assert "Verify renewal" not in text(viewer, f"/certificates/{one.pk}/")


# --- Import -------------------------------------------------------------------------------------


def test_an_import_writes_nothing_before_it_was_looked_at(browser: Client) -> None:
    form = {"text": "www.example.org\nbad..host", "port": 8443, "action": "check"}
    page = html_of(browser.post("/certificates/import/", form, secure=True))
    assert "1 new, 0 watched already, 0 addresses to search, 1 problem" in page
    assert "Invalid host name" in page
    assert not Endpoint.objects.exists()
    browser.post("/certificates/import/", {**form, "action": "import"}, secure=True)
    assert str(Endpoint.objects.get()) == "www.example.org:8443"


def test_a_range_is_counted_before_it_is_searched(browser: Client) -> None:
    form = {"text": "192.0.2.0/28:25", "port": 443, "action": "check"}
    page = browser.post("/certificates/import/", form, secure=True).content.decode()
    assert "Search 14 addresses" in page
    browser.post("/certificates/import/", {**form, "action": "import"}, secure=True)
    run = PeriodicTask.objects.get(task="soc.ssl_certs.tasks.search_ranges")
    assert "under way" in text(browser, "/certificates/import/")
    assert "192.0.2.0/28:25" in run.name


# --- Calendar -----------------------------------------------------------------------------------


def test_the_calendar_has_one_event_for_each_certificate(viewer: Client) -> None:
    one = endpoint("portal", days=30)
    Endpoint.objects.create(host="twin", certificate=one.certificate)
    endpoint("far", days=500)
    endpoint("unused", enabled=False)
    answer = viewer.get(CALENDAR, secure=True)
    assert answer["Content-Type"] == "text/calendar; charset=utf-8"
    (event,) = Calendar.from_ical(answer.content).walk("VEVENT")
    assert event["SUMMARY"] == "Certificate of portal:443 and 1 more expires"
    assert event.decoded("DTSTART") == one.certificate.not_after.replace(microsecond=0)
    assert "twin:443" in event["DESCRIPTION"]


def test_a_calendar_without_events_has_a_component(viewer: Client) -> None:
    """RFC 5545, 3.6 wants one, and some readers refuse a file without."""
    calendar = Calendar.from_ical(viewer.get(CALENDAR, secure=True).content)
    assert [one.name for one in calendar.subcomponents] == ["VTIMEZONE"]


def test_the_calendar_takes_a_token_in_the_address_or_the_header() -> None:
    user = User.objects.create_user("calendar")
    user.groups.add(Role.objects.get(name="Viewers"))
    stranger = User.objects.create_user("stranger")
    secret, useless = tokens.create("a", user), tokens.create("b", stranger)
    client = Client()
    header = {"headers": {"authorization": f"Bearer {secret}"}}
    assert client.get(f"{CALENDAR}?token={secret}", secure=True).status_code == 200
    assert client.get(CALENDAR, secure=True, **header).status_code == 200
    for refused in ("", "?token=soc_wrong", f"?token={useless}"):
        assert client.get(CALENDAR + refused, secure=True).status_code == 401


def test_the_calendar_slows_down_who_guesses_tokens() -> None:
    for _ in range(settings.AXES_FAILURE_LIMIT):
        assert Client().get(f"{CALENDAR}?token=soc_wrong", secure=True).status_code == 401
    answer = Client().get(f"{CALENDAR}?token=soc_wrong", secure=True)
    assert answer.status_code == 429
    assert int(answer["Retry-After"]) > 0


# --- Pictures -----------------------------------------------------------------------------------


def test_a_strip_tells_each_status_and_how_long_it_lasted() -> None:
    now = timezone.now()
    rows = [(now - 40 * DAY, "ok"), (now - 10 * DAY, "warning"), (now - 9 * DAY, "ok")]
    strip = strips.strip(rows, now)
    assert [(s.value, s.width / 24) for s in strip.segments] == [
        ("ok", 20), ("warning", 1), ("ok", 9),
    ]  # fmt: skip
    assert strip.in_words == "ok for 29 d 0 h; expires soon for 1 d 0 h"
    assert strips.strip([], now).in_words == "not scanned yet"


def test_the_picture_counts_by_weeks() -> None:
    now = timezone.now()
    today = now.date()
    drawn = picture.draw([(today, 2), (today + 6 * DAY, 1), (today + 30 * DAY, 8)], now)
    assert [(bar.week, bar.count, bar.tone) for bar in drawn.bars] == [
        (0, 3, "bad"), (4, 8, "info"),
    ]  # fmt: skip
    assert (drawn.total, drawn.soon, drawn.highest) == (11, 3, 8)
    assert len(drawn.months) == 12
