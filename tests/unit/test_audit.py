"""The audit log: who did what to what, from where, and what it must never hold."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from auditlog.models import LogEntry
from auditlog.registry import auditlog
from django.apps import apps
from django.contrib.auth.models import Group, User
from django.test import Client
from django.utils import timezone
from django_celery_beat.models import PeriodicTask

from mailing import Clock
from soc.access import audit
from soc.core import housekeeping, tokens
from soc.core.models import ApiToken, Heartbeat
from soc.core.sealed import SealedField
from soc.notify.models import Subscription

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("plain_static_files")]

LOG = "/admin/auditlog/logentry/"
SCHEDULES = "/admin/django_celery_beat/periodictask/"
ADDRESS = {"REMOTE_ADDR": "192.0.2.7", "HTTP_X_FORWARDED_FOR": "198.51.100.1"}


def events() -> list[str]:
    """Return the log from its beginning, as its page names things."""
    page = audit.admin.site._registry[LogEntry]
    return [page.what(entry) for entry in LogEntry.objects.order_by("pk")]


def last() -> LogEntry:
    return LogEntry.objects.order_by("-pk").first()


def test_a_change_is_recorded_with_both_values_the_person_and_the_address(
    browser: Client,
) -> None:
    group = Group.objects.create(name="night shift")
    path = f"/admin/auth/group/{group.pk}/change/"
    browser.post(path, {"name": "day shift"}, secure=True, **ADDRESS)
    entry = last()
    assert entry.changes == {"name": ["night shift", "day shift"]}
    assert (entry.actor.username, entry.remote_addr) == ("ann", "192.0.2.7")
    assert timezone.now() - entry.timestamp < timedelta(minutes=1)
    page = browser.get(f"{LOG}{entry.pk}/change/", secure=True).content.decode()
    assert "night shift → day shift" in page
    assert "192.0.2.7" in page


def test_deleting_is_recorded_with_what_was_there(browser: Client) -> None:
    subscription = Subscription.objects.create(name="s", recipients="a@b.test")
    path = f"/admin/notify/subscription/{subscription.pk}/delete/"
    browser.post(path, {"post": "yes"}, secure=True)
    entry = last()
    assert entry.action == LogEntry.Action.DELETE
    assert entry.changes["recipients"] == ["a@b.test", "None"]


def test_rights_that_are_given_are_recorded(browser: Client) -> None:
    bob = User.objects.create_user("bob")
    viewers = Group.objects.get(name="Viewers")
    form = {
        **{"username": "bob", "is_active": "on", "groups": [viewers.pk]},
        **{"date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"},
        **{"identity_set-TOTAL_FORMS": 0, "identity_set-INITIAL_FORMS": 0},
    }
    answer = browser.post(f"/admin/auth/user/{bob.pk}/change/", form, secure=True)
    assert answer.status_code == 302
    given = {"type": "m2m", "operation": "add", "objects": ["Viewers"]}
    assert last().changes == {"groups": given}
    assert last().actor.username == "ann"


def test_an_action_on_rows_is_recorded_though_it_passes_the_models(browser: Client) -> None:
    rows = list(PeriodicTask.objects.values_list("pk", flat=True)[:2])
    form = {"action": "disable", "_selected_action": rows}
    browser.post(SCHEDULES, form, secure=True, **ADDRESS)
    entry = LogEntry.objects.get(additional_data__event="Action disable")
    assert entry.additional_data["rows"] == [str(row) for row in rows]
    assert (entry.actor.username, entry.remote_addr) == ("ann", "192.0.2.7")
    assert entry.content_type.model == "periodictask"


def test_coming_and_going_is_recorded(settings: Any, browser: Client) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    LogEntry.objects.all().delete()
    User.objects.create_user("bob", password="Correct horse 1")
    client = Client()
    for password in ("wrong", "Correct horse 1"):
        form = {"username": "bob", "password": password}
        client.post("/sign-in/", form, secure=True, **ADDRESS)
    client.post("/sign-out/", secure=True, **ADDRESS)
    assert events() == ["Created", "Sign-in refused", "Signed in", "Signed out"]
    mine = LogEntry.objects.exclude(action=LogEntry.Action.CREATE)
    assert {(entry.object_repr, entry.remote_addr) for entry in mine} == {("bob", "192.0.2.7")}
    page = browser.get(LOG, secure=True).content.decode()
    assert "Sign-in refused" in page


def test_a_name_that_nobody_has_is_not_kept(caplog: pytest.LogCaptureFixture) -> None:
    """It may be a password that went into the wrong field."""
    Client().post("/sign-in/", {"username": "Tr0ub4dor", "password": "x"}, secure=True)
    assert events() == ["Sign-in refused"]
    assert "Tr0ub4dor" not in str(LogEntry.objects.values())
    assert "Tr0ub4dor" not in caplog.text


def test_a_lock_is_recorded_once(settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    for _ in range(8):
        Client().post("/sign-in/", {"username": "x", "password": "x"}, secure=True)
    assert events() == ["Sign-in refused"] * 4 + ["Sign-in refused, and locked"]


def test_a_token_is_recorded_when_it_is_made_wherever_that_is(browser: Client) -> None:
    ann = User.objects.get()
    form = {"name": "by page", "user": ann.pk, "enabled": "on"}
    browser.post("/admin/core/apitoken/add/", form, secure=True)
    tokens.create("by command", ann)
    made = LogEntry.objects.get_for_model(ApiToken).order_by("pk")
    assert [(e.object_repr, e.actor and e.actor.username) for e in made] == [
        ("by page", "ann"),
        ("by command", None),
    ]


def test_no_secret_is_in_the_log(browser: Client) -> None:
    ann = User.objects.get()
    form = {"password1": "Another horse 2", "password2": "Another horse 2"}
    browser.post(f"/admin/auth/user/{ann.pk}/password/", form, secure=True)
    secret = tokens.create("t", ann)
    ann.refresh_from_db()
    assert {"password"} <= set(LogEntry.objects.get_for_object(ann).first().changes)
    text = str(list(LogEntry.objects.values()))
    for part in ("Another horse 2", ann.password[-20:], secret, tokens.digest(secret)[-20:]):
        assert part not in text
    assert "(not shown)" in text


def test_every_field_that_could_hold_a_secret_is_hidden() -> None:
    suspicious = ("password", "secret", "digest", "token")
    # Where tokens are asked for, which is published.
    public = {"mail_routes.MailAccount.token_url"}
    for model in apps.get_models():
        hidden = set()
        if auditlog.contains(model):
            hidden = set(auditlog.get_model_fields(model)["mask_fields"])
            assert auditlog.get_model_fields(model)["mask_callable"] == "soc.access.audit.hidden"
        for field in model._meta.concrete_fields:
            label = f"{model._meta.label}.{field.name}"
            named_so = any(word in field.name for word in suspicious) and label not in public
            text = field.get_internal_type() in ("CharField", "TextField")
            if auditlog.contains(model) and (isinstance(field, SealedField) or (named_so and text)):
                assert field.name in hidden, label


def test_what_the_stack_writes_by_itself_is_not_recorded(browser: Client) -> None:
    LogEntry.objects.all().delete()
    Heartbeat.objects.create(service="beat", instance="i", seen_at=timezone.now())
    Subscription.objects.create(name="s", recipients="a@b.test")
    browser.get("/", secure=True)
    assert not LogEntry.objects.exists()


def test_nobody_changes_or_deletes_a_row(browser: Client) -> None:
    pk = last().pk
    for path in (f"{LOG}add/", f"{LOG}{pk}/delete/"):
        assert browser.post(path, {"post": "yes"}, secure=True).status_code == 403, path
    browser.post(f"{LOG}{pk}/change/", {"object_repr": "x"}, secure=True)
    form = {"action": "delete_selected", "_selected_action": [pk], "post": "yes"}
    browser.post(LOG, form, secure=True)
    assert LogEntry.objects.get(pk=pk).object_repr == "ann"


def test_rows_past_the_sites_retention_are_deleted(browser: Client, clock: Clock) -> None:
    clock.now += timedelta(days=399)
    housekeeping.run()
    assert LogEntry.objects.exists()
    clock.now += timedelta(days=2)
    housekeeping.run()
    assert not LogEntry.objects.exists()
