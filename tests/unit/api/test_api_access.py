"""Who gets in: tokens, rights, and what a stranger hears."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import timedelta
from io import StringIO

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone
from programs import Program, make_program, problem_of

from soc.alerts.models import Alert
from soc.core import tokens
from soc.core.models import ApiToken

pytestmark = pytest.mark.django_db

ALERTS = "/api/v1/alerts"
TOKENS = "/admin/core/apitoken/"


def test_a_stranger_is_told_how_to_come_in(stranger: Program) -> None:
    answer = stranger.get(ALERTS)
    assert "'Authorization: Bearer', a blank" in problem_of(answer, 401)
    assert answer["WWW-Authenticate"] == 'Bearer realm="soc"'


@pytest.mark.usefixtures("plain_static_files")
@pytest.mark.parametrize(
    "path", ["", "openapi.json", "nowhere", "v1/", "v1/conditions", "v1/alerts/1"]
)
def test_a_stranger_learns_nothing_of_what_there_is(stranger: Program, path: str) -> None:
    answer = stranger.get(f"/api/{path}")
    assert answer.status_code in (401, 404)
    assert b"alert" not in answer.content.lower()
    assert (path == "") == (answer.status_code == 404)


def test_a_session_is_no_token(program: Program, browser: Client) -> None:
    assert browser.get(ALERTS, secure=True).status_code == 401
    assert browser.get("/metrics", secure=True).status_code == 401


def test_the_admin_may_be_open_in_the_browser_that_posts(
    make_alert: Callable[..., Alert], program: Program, browser: Client
) -> None:
    """A request from another page has the cookies of the session, but never a token."""
    address = f"{ALERTS}/{make_alert().pk}/resolve"
    assert browser.post(address, {}, "application/json", secure=True).status_code == 401
    assert Alert.objects.get().state == "firing"


@pytest.mark.parametrize(
    "sent",
    ["", "Bearer", "Bearer ", "Bearer soc_x", "Basic {}", "{}", "Bearer  {}", "bearer \u00ff"],
)
def test_what_is_no_token_opens_nothing(program: Program, sent: str) -> None:
    client = Client(headers={"Authorization": sent.format(program.secret)})
    assert client.get(ALERTS, secure=True).status_code == 401


@pytest.mark.parametrize(
    "spoil",
    [
        lambda: ApiToken.objects.update(enabled=False),
        lambda: ApiToken.objects.update(expires_at=timezone.now()),
        lambda: ApiToken.objects.all().delete(),
        lambda: User.objects.update(is_active=False),
        lambda: User.objects.all().delete(),
    ],
    ids=["disabled", "expired", "deleted", "disabled user", "deleted user"],
)
def test_a_token_that_does_not_work_any_more_opens_nothing(
    program: Program, spoil: Callable[[], object]
) -> None:
    assert program.get(ALERTS).status_code == 200
    spoil()
    assert program.get(ALERTS).status_code == 401


@pytest.mark.parametrize(
    ("right", "path", "method"),
    [
        ("view_alert", ALERTS, "get"),
        ("view_alert", f"{ALERTS}/1", "get"),
        ("operate_alert", f"{ALERTS}/1/acknowledge", "post"),
        ("operate_alert", f"{ALERTS}/1/resolve", "post"),
        ("report_condition", "/api/v1/conditions", "post"),
        ("view_alert", "/metrics", "get"),
    ],
)
def test_each_address_needs_one_right(right: str, path: str, method: str) -> None:
    others = {"view_alert", "operate_alert", "report_condition"} - {right}
    refusal = problem_of(getattr(make_program(*others), method)(path), 403)
    assert f"lacks the permission alerts.{right}" in refusal
    assert getattr(make_program(right), method)(path).status_code not in (401, 403)


def test_a_secret_has_256_bits_and_only_its_digest_is_kept() -> None:
    secret = tokens.create("t", User.objects.create_user("bob"))
    assert secret.startswith("soc_")
    assert len(secret) >= len("soc_") + 256 / 6
    token = ApiToken.objects.get()
    assert token.digest == hashlib.sha256(secret.encode()).hexdigest()
    assert secret not in str(ApiToken.objects.values())


def test_a_use_is_noted_once_a_minute(
    program: Program, monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: Callable
) -> None:
    start = timezone.now()
    for seconds, noted in ((0, 0), (59, 0), (60, 60), (119, 60)):
        now = start + timedelta(seconds=seconds)
        monkeypatch.setattr(timezone, "now", lambda now=now: now)
        tokens.of_secret(program.secret)
        assert ApiToken.objects.get().last_used_at == start + timedelta(seconds=noted)
    with django_assert_num_queries(1):
        tokens.of_secret(program.secret)


# --- The admin and the command ------------------------------------------------------------------


def test_the_admin_shows_the_secret_once(browser: Client) -> None:
    data = {"name": "backup", "user": User.objects.get().pk, "enabled": "on"}
    made = browser.post(f"{TOKENS}add/", data, secure=True)
    assert made.status_code == 200
    assert "no-store" in made["Cache-Control"]
    secret = next(word for word in made.content.decode().split() if "soc_" in word)
    secret = "soc_" + secret.split("soc_")[1].split("<")[0]
    assert tokens.of_secret(secret) == ApiToken.objects.get(name="backup")
    for page in (TOKENS, f"{TOKENS}{ApiToken.objects.get().pk}/change/"):
        shown = browser.get(page, secure=True).content.decode()
        assert "backup" in shown
        assert secret not in shown
    assert secret not in str(browser.cookies)


def test_the_admin_changes_no_secret_and_no_user(browser: Client) -> None:
    bob = User.objects.create_user("bob")
    secret = tokens.create("t", bob)
    token = ApiToken.objects.get()
    data = {"name": "renamed", "user": User.objects.get(username="ann").pk}
    browser.post(f"{TOKENS}{token.pk}/change/", data, secure=True)
    changed = ApiToken.objects.get()
    assert (changed.name, changed.user, changed.enabled) == ("renamed", bob, False)
    assert changed.digest == tokens.digest(secret)


@pytest.mark.usefixtures("plain_static_files")
def test_nobody_makes_a_token_with_the_rights_of_somebody_else() -> None:
    boss = User.objects.create_superuser("boss")
    bob = User.objects.create_user("bob", is_staff=True)
    bob.user_permissions.set(Permission.objects.filter(codename__endswith="apitoken"))
    client = Client()
    client.force_login(bob)
    for user, count in ((boss, 0), (bob, 1)):
        data = {"name": str(user), "user": user.pk, "enabled": "on"}
        client.post(f"{TOKENS}add/", data, secure=True)
        assert ApiToken.objects.count() == count


def run(*arguments: str) -> str:
    output = StringIO()
    call_command("token", *arguments, stdout=output, stderr=StringIO())
    return output.getvalue()


def test_the_command_makes_lists_and_revokes() -> None:
    User.objects.create_user("bob")
    secret = run("create", "backup", "--user", "bob", "--days", "30").strip()
    token = tokens.of_secret(secret)
    assert token is not None
    assert token.expires_at - timezone.now() > timedelta(days=29)
    listed = run("list")
    assert "backup  bob  works  until" in listed
    assert secret not in listed
    assert run("revoke", "backup") == "backup no longer works.\n"
    assert tokens.of_secret(secret) is None
    assert "backup  bob  disabled" in run("list")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["create", "x", "--user", "eve"], "no user 'eve'"),
        (["create", "taken", "--user", "bob"], "already exists"),
        (["create", "x" * 101, "--user", "bob"], "at most 100 characters"),
        (["create", "x", "--user", "bob", "--days", "0"], "no number of days"),
        (["revoke", "gone"], "There is no token 'gone'; there are: taken."),
    ],
)
def test_the_command_says_what_will_not_do(arguments: list[str], words: str) -> None:
    tokens.create("taken", User.objects.create_user("bob"))
    with pytest.raises(CommandError, match=words):
        run(*arguments)
    assert ApiToken.objects.count() == 1


# --- The description ----------------------------------------------------------------------------


def test_the_description_names_every_address_with_examples(program: Program) -> None:
    answer = program.get("/api/openapi.json")
    described = answer.json()
    assert described["openapi"].startswith("3.1")
    assert set(described["paths"]) == {
        "/api/v1/alerts",
        "/api/v1/alerts/{alert_id}",
        "/api/v1/alerts/{alert_id}/acknowledge",
        "/api/v1/alerts/{alert_id}/resolve",
        "/api/v1/conditions",
        "/api/v1/alertmanager",
        "/api/v1/grafana",
        "/api/v1/oncall",
    }
    for path in described["paths"].values():
        for operation in path.values():
            assert operation["description"]
            assert operation["security"] == [{"Token": []}]
            assert "application/problem+json" in operation["responses"]["401"]["content"]
    assert described["components"]["schemas"]["ConditionIn"]["examples"]


def test_what_does_not_exist_is_a_problem_too(program: Program) -> None:
    assert "/api/openapi.json" in problem_of(program.get("/api/v2/alerts"), 404)
    refusal = program.post(ALERTS, {})
    assert problem_of(refusal, 405) == "This address takes GET, HEAD and not POST."
    assert refusal["Allow"] == "GET, HEAD"
