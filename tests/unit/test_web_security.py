"""Sign-in that cannot be guessed, sessions that end, roles, and what browsers are told."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from auditlog.models import LogEntry
from axes.models import AccessAttempt
from django.contrib.auth.models import Group, User
from django.contrib.sessions.models import Session
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone

from mailing import Clock
from soc.access import audit, roles, sessions, throttle
from soc.core import housekeeping, tokens

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("plain_static_files")]

PASSWORD = "Correct horse 1"
LOCKS = "/admin/axes/accessattempt/"


@pytest.fixture(autouse=True)
def quick_passwords(settings: Any) -> None:
    """Make passwords that cost nothing to try: these tests try hundreds."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def clocks(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of day, that of sessions and that of locks, moved together."""
    monkeypatch.setattr(sessions.time, "time", lambda: clock.now.timestamp())
    monkeypatch.setattr("axes.handlers.proxy.now", lambda: clock.now)
    return clock


@pytest.fixture
def bob() -> User:
    return User.objects.create_user("bob", password=PASSWORD)


def try_in(
    name: str, password: str = "wrong", address: str = "192.0.2.1", client: Client | None = None
) -> HttpResponse:
    form = {"username": name, "password": password}
    return (client or Client()).post("/sign-in/", form, secure=True, REMOTE_ADDR=address)


def is_in(answer: HttpResponse) -> bool:
    return answer.status_code == 302


def lock(name: str, address: str = "192.0.2.1") -> HttpResponse:
    for n in range(5):
        answer = try_in(name, address=address, client=Client(headers={"User-Agent": f"try {n}"}))
    return answer


# --- Guessing -----------------------------------------------------------------------------------


def test_five_wrong_passwords_lock_a_name_for_an_address(bob: User) -> None:
    assert [try_in("bob").status_code for _ in range(5)] == [200, 200, 200, 200, 429]
    assert try_in("bob", PASSWORD).status_code == 429


def test_the_page_says_when_to_try_again(bob: User, clocks: Clock) -> None:
    answer = lock("bob")
    until = timezone.localtime(clocks.now + timedelta(minutes=15))
    assert f"{until:%H:%M:%S}" in answer.content.decode()
    assert answer["Retry-After"] == "900"
    clocks.now += timedelta(minutes=14, seconds=59)
    assert try_in("bob", PASSWORD)["Retry-After"] == "1"
    clocks.now += timedelta(seconds=2)
    assert is_in(try_in("bob", PASSWORD))


def test_who_goes_on_trying_does_not_wait_longer_and_costs_no_rows(
    bob: User, clocks: Clock
) -> None:
    lock("bob")
    rows = AccessAttempt.objects.count(), LogEntry.objects.count()
    clocks.now += timedelta(minutes=10)
    assert try_in("bob")["Retry-After"] == "300"
    assert (AccessAttempt.objects.count(), LogEntry.objects.count()) == rows


def test_a_lock_is_of_one_name_at_one_address(bob: User) -> None:
    User.objects.create_user("eve", password=PASSWORD)
    lock("bob")
    assert is_in(try_in("bob", PASSWORD, address="192.0.2.2"))
    assert is_in(try_in("eve", PASSWORD))


def test_a_name_that_nobody_has_is_locked_as_any_other(bob: User) -> None:
    # The page says until when, and a minute may end between the two.
    pages = [re.sub(r"\d", "", lock(name).content.decode()) for name in ("nobody", "bob")]
    assert pages[0] == pages[1]


def test_an_address_that_tries_many_names_is_locked(bob: User) -> None:
    for n in range(50):
        answer = try_in(f"name{n}")
    assert answer.status_code == 429
    assert try_in("bob", PASSWORD).status_code == 429
    assert is_in(try_in("bob", PASSWORD, address="192.0.2.2"))


def test_forwarding_headers_change_nothing(bob: User) -> None:
    for n in range(5):
        headers = {"X-Forwarded-For": f"198.51.100.{n}", "X-Real-IP": f"198.51.100.{n}"}
        answer = try_in("bob", client=Client(headers=headers))
    assert answer.status_code == 429


def test_a_sign_in_that_works_forgets_the_wrong_ones(bob: User) -> None:
    for _ in range(3):
        for _ in range(4):
            try_in("bob")
        assert is_in(try_in("bob", PASSWORD))


def test_an_administrator_unlocks(browser: Client, bob: User) -> None:
    lock("bob")
    assert b"bob" in browser.get(LOCKS, secure=True).content
    rows = [attempt.pk for attempt in AccessAttempt.objects.all()]
    form = {"action": "unlock", "_selected_action": rows}
    page = browser.post(LOCKS, form, secure=True, follow=True).content.decode()
    assert "Unlocked: 5." in page
    assert is_in(try_in("bob", PASSWORD))


def test_locks_and_sessions_that_are_over_are_deleted(bob: User, clocks: Clock) -> None:
    lock("bob")
    Client().force_login(bob)
    assert Session.objects.count() == 1
    clocks.now += timedelta(days=2)
    housekeeping.run()
    assert AccessAttempt.objects.count() == 0
    assert Session.objects.count() == 0


# --- Wrong API tokens ---------------------------------------------------------------------------


def ask(secret: str, address: str = "192.0.2.1") -> HttpResponse:
    headers = {"Authorization": f"Bearer {secret}"}
    return Client(headers=headers).get("/metrics", secure=True, REMOTE_ADDR=address)


def test_wrong_tokens_are_throttled_and_right_ones_work_all_the_same(bob: User) -> None:
    right = tokens.create("t", bob)
    assert [ask(f"soc_{n}").status_code for n in range(7)] == [401] * 5 + [429] * 2
    refused = ask("soc_x")
    assert 0 < int(refused["Retry-After"]) <= 900
    assert refused["Content-Type"] == "application/problem+json"
    assert ask(right).status_code == 403, "bob may not see alerts, but his token is known"
    assert ask("soc_x", "192.0.2.2").status_code == 401


def test_wrong_tokens_do_not_lock_people_out(bob: User) -> None:
    for n in range(60):
        ask(f"soc_{n}")
    assert is_in(try_in("bob", PASSWORD))


# --- Sessions -----------------------------------------------------------------------------------


def test_a_session_ends_after_an_idle_hour(browser: Client, clocks: Clock) -> None:
    for _ in range(3):
        clocks.now += timedelta(minutes=59)
        assert browser.get("/", secure=True).status_code == 200
    clocks.now += timedelta(minutes=61)
    assert browser.get("/", secure=True)["Location"].startswith("/sign-in/")
    assert Session.objects.count() == 0


def test_a_page_that_refreshes_itself_is_no_act(browser: Client, clocks: Clock) -> None:
    for _ in range(6):
        assert browser.get("/board/live/", secure=True).status_code == 200
        clocks.now += timedelta(minutes=10, seconds=1)
    assert browser.get("/board/live/", secure=True).status_code == 302


def test_a_session_ends_twelve_hours_after_sign_in_whatever_is_done(
    browser: Client, clocks: Clock
) -> None:
    for _ in range(23):
        clocks.now += timedelta(minutes=30)
        assert browser.get("/", secure=True).status_code == 200
    clocks.now += timedelta(minutes=30)
    assert browser.get("/", secure=True)["Location"].startswith("/sign-in/")


def test_a_new_password_signs_out_everywhere_else(browser: Client) -> None:
    elsewhere = Client()
    ann = User.objects.get(username="ann")
    elsewhere.force_login(ann)
    form = {"password1": "Another horse 2", "password2": "Another horse 2"}
    path = f"/admin/auth/user/{ann.pk}/password/"
    assert browser.post(path, form, secure=True).status_code == 302
    assert browser.get("/", secure=True).status_code == 200
    assert elsewhere.get("/", secure=True).status_code == 302


def test_sign_in_gives_a_new_session_and_sign_out_ends_it(bob: User) -> None:
    client = Client()
    fixed = client.session
    fixed.save()
    client.cookies[sessions.settings.SESSION_COOKIE_NAME] = fixed.session_key
    assert is_in(try_in("bob", PASSWORD, client=client))
    key = client.session.session_key
    assert key != fixed.session_key
    assert not Session.objects.filter(pk=fixed.session_key).exists()
    client.post("/sign-out/", secure=True)
    assert not Session.objects.filter(pk=key).exists()


def test_cookies_are_for_this_host_over_https_and_no_script(bob: User) -> None:
    client = Client()
    client.get("/sign-in/", secure=True)
    try_in("bob", PASSWORD, client=client)
    assert len(client.cookies) == 2
    for name, cookie in client.cookies.items():
        assert name.startswith("__Host-")
        assert cookie["secure"]
        assert cookie["httponly"]
        assert cookie["samesite"] == "Lax"
        assert (cookie["path"], cookie["domain"]) == ("/", "")


# --- What browsers are told ---------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/sign-in/", "/alerts/", "/healthz", "/nowhere"])
def test_every_page_has_the_strict_policy(browser: Client, path: str) -> None:
    answer = browser.get(path, secure=True)
    policy = answer["Content-Security-Policy"]
    assert "unsafe" not in policy
    for part in (
        *("default-src 'none'", "script-src 'self'", "style-src 'self'", "base-uri 'none'"),
        *("frame-ancestors 'none'", "form-action 'self'"),
    ):
        assert part in policy.split("; "), part
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Referrer-Policy"] == "same-origin"
    assert answer["Cross-Origin-Opener-Policy"] == "same-origin"
    assert answer["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "camera=()" in answer["Permissions-Policy"]
    assert answer["Strict-Transport-Security"] == "max-age=3600"


def test_the_admin_may_evaluate_and_style_but_take_no_script_from_a_page(browser: Client) -> None:
    answer = browser.get("/admin/", secure=True)
    parts = answer["Content-Security-Policy"].split("; ")
    assert "script-src 'self' 'unsafe-eval'" in parts
    (nonce,) = re.findall(r"style-src-elem 'self' 'nonce-([^']+)'", "; ".join(parts))
    styles = re.findall(r"<style[^>]*>", answer.content.decode())
    assert styles
    assert all(f'nonce="{nonce}"' in style for style in styles)
    again = browser.get("/admin/", secure=True)
    assert nonce not in again["Content-Security-Policy"]


def test_pages_of_signed_in_people_are_not_cached(browser: Client) -> None:
    for path in ("/", "/alerts/", "/admin/", "/admin/auth/user/"):
        assert "no-store" in browser.get(path, secure=True)["Cache-Control"], path


@pytest.mark.parametrize(
    "target", ["https://evil.test/", "//evil.test", "/\\evil.test", "javascript:alert(1)"]
)
def test_sign_in_sends_nobody_elsewhere(
    bob: User, caplog: pytest.LogCaptureFixture, target: str
) -> None:
    form = {"username": "bob", "password": PASSWORD, "next": target}
    assert Client().post("/sign-in/", form, secure=True)["Location"] == "/"
    assert "Refused to send a browser from sign-in to" in caplog.text


def test_a_form_from_elsewhere_is_refused_on_a_page_of_ours(
    bob: User, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client(enforce_csrf_checks=True)
    answer = try_in("bob", PASSWORD, client=client)
    assert answer.status_code == 403
    assert b"This form is out of date" in answer.content
    assert "Forbidden (Referer checking failed" in caplog.text


def test_errors_tell_nothing_of_the_inside(browser: Client, monkeypatch: Any) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("the inside")

    monkeypatch.setattr("soc.board.data.read", broken)
    browser.raise_request_exception = False
    answer = browser.get("/", secure=True)
    assert answer.status_code == 500
    assert b"Something went wrong here" in answer.content
    assert b"the inside" not in answer.content
    assert b"Traceback" not in answer.content


# --- Roles --------------------------------------------------------------------------------------


PAGES = {
    "/": "everybody",
    "/alerts/": {"Viewers", "Operators", "Administrators"},
    "/admin/": {"Operators", "Administrators"},
    "/admin/alerts/silence/add/": {"Operators", "Administrators"},
    "/admin/alerts/rule/": {"Operators", "Administrators"},
    "/admin/alerts/rule/add/": {"Administrators"},
    "/admin/django_celery_beat/periodictask/": {"Administrators"},
    "/admin/core/taskfailure/": {"Administrators"},
    "/admin/notify/subscription/": {"Administrators"},
    "/admin/core/apitoken/": {"Administrators"},
    "/admin/auth/user/": {"Administrators"},
    "/admin/auditlog/logentry/": {"Administrators"},
    LOCKS: {"Administrators"},
}


@pytest.fixture
def member() -> Callable[[str], Client]:
    roles.complete()

    def of(role: str) -> Client:
        user = User.objects.create_user(role or "nobody")
        roles.assign(user, {role} if role else ())
        client = Client()
        client.force_login(user)
        return client

    return of


@pytest.mark.parametrize("role", ["", "Viewers", "Reporters", "Operators", "Administrators"])
def test_each_role_sees_its_pages_and_no_other(member: Callable[[str], Client], role: str) -> None:
    client = member(role)
    seen = {path for path in PAGES if client.get(path, secure=True).status_code == 200}
    assert seen == {path for path, may in PAGES.items() if may == "everybody" or role in may}


def test_an_administrator_makes_nobody_a_superuser(member: Callable[[str], Client]) -> None:
    client = member("Administrators")
    boss = User.objects.create_superuser("boss", password=PASSWORD)
    path = f"/admin/auth/user/{boss.pk}"
    for page in (f"{path}/password/", f"{path}/delete/"):
        assert client.post(page, {"post": "yes"}, secure=True).status_code == 403
    assert client.post(f"{path}/change/", {"username": "x"}, secure=True).status_code == 403
    me = User.objects.get(username="Administrators")
    form = {
        **{"username": me.username, "is_active": "on", "is_staff": "on", "is_superuser": "on"},
        **{"date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"},
        **{"groups": [Group.objects.get(name="Administrators").pk]},
        **{"identity_set-TOTAL_FORMS": 0, "identity_set-INITIAL_FORMS": 0},
    }
    assert client.post(f"/admin/auth/user/{me.pk}/change/", form, secure=True).status_code == 302
    me.refresh_from_db()
    assert (me.is_staff, me.is_superuser) == (True, False)


def test_new_permissions_come_to_the_administrators() -> None:
    roles.complete()
    group = Group.objects.get(name="Administrators")
    lost = group.permissions.first()
    group.permissions.remove(lost)
    roles.complete()
    assert lost in group.permissions.all()


def test_the_audit_and_the_throttle_watch_under_our_names() -> None:
    """What settings name by a path is what these tests have tested."""
    names = sessions.settings.MIDDLEWARE
    assert f"{audit.__name__}.AuditMiddleware" in names
    assert names.index(f"{sessions.__name__}.IdleSessionMiddleware") < names.index(
        "django.contrib.auth.middleware.LoginRequiredMiddleware"
    )
    handler = sessions.settings.AXES_HANDLER
    assert handler == f"{throttle.__name__}.Handler"
