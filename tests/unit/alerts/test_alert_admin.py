"""The admin's pages of alerts: rules in words, silences with their windows, nothing to rewrite."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from soc.alerts.models import Alert, Rule, Silence, Subject

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("plain_static_files")]

SILENCES = "/admin/alerts/silence/"
RULES = "/admin/alerts/rule/"


@pytest.fixture
def rule() -> Rule:
    return Rule.objects.create(
        application="events", name="bot", needed=2, window=3, description="A bot works."
    )


def raised(rule: Rule, name: str, **values: Any) -> Alert:
    now = timezone.now()
    subject = Subject.objects.create(rule=rule, name=name, fingerprint=name)
    alert = Alert.objects.create(
        rule=rule, subject=subject, open_key=name, state="firing", severity=30, opened_at=now,
        last_seen_at=now, **values,
    )  # fmt: skip
    Subject.objects.filter(pk=subject.pk).update(alert=alert)
    return alert


def silence(hours: float, length: float = 1, **values: Any) -> Silence:
    """A silence that begins so many hours from now."""
    starts_at = timezone.now() + timedelta(hours=hours)
    values = {"comment": "They paint.", "ends_at": starts_at + timedelta(hours=length), **values}
    return Silence.objects.create(starts_at=starts_at, **values)


def page_of(browser: Client, row: Any) -> str:
    name = f"admin:alerts_{row._meta.model_name}_change"
    return browser.get(reverse(name, args=[row.pk]), secure=True).content.decode()


def end_now(browser: Client, *rows: Silence) -> str:
    data = {"action": "end_now", "_selected_action": [row.pk for row in rows]}
    return browser.post(SILENCES, data, secure=True, follow=True).content.decode()


# --- Rules --------------------------------------------------------------------------------------


def test_a_rule_is_listed_with_its_open_alerts(browser: Client, rule: Rule) -> None:
    Rule.objects.create(application="events", name="calm")
    raised(rule, "bot-1")
    alert = raised(rule, "bot-2")
    Alert.objects.filter(pk=alert.pk).update(resolved_at=timezone.now())
    page = browser.get(RULES, secure=True).content.decode()
    assert "2 bad of 3" in page
    assert 'href="/alerts/?rule=events/bot">1</a>' in page
    assert "/alerts/?rule=events/calm" not in page


def test_the_rules_are_listed_in_a_fixed_number_of_queries(
    browser: Client, rule: Rule, django_assert_max_num_queries: Any
) -> None:
    for n in range(20):
        raised(Rule.objects.create(application="events", name=f"r{n}"), f"s{n}")
    with django_assert_max_num_queries(8):
        browser.get(RULES, secure=True)


def test_a_rule_that_could_never_fire_is_refused(browser: Client, rule: Rule) -> None:
    form = {
        **{"enabled": "on", "needed": 4, "window": 3, "good_needed": 1, "stale_after": 60},
        **{"flap_changes": 5, "flap_minutes": 30, "remind_info": 0, "remind_warning": 0},
        **{"remind_critical": 0, "steps-TOTAL_FORMS": 0, "steps-INITIAL_FORMS": 0},
    }
    path = reverse("admin:alerts_rule_change", args=[rule.pk])
    page = browser.post(path, form, secure=True).content.decode()
    assert "the rule could never fire" in page
    browser.post(path, form | {"needed": 3}, secure=True)
    rule.refresh_from_db()
    assert (rule.needed, str(rule)) == (3, "events/bot")


# --- Silences -----------------------------------------------------------------------------------


def silence_form(**values: str) -> dict[str, str]:
    return {
        **{"kind": "maintenance", "comment": "Patch night", "subject": "bot-*"},
        **{"starts_at_0": "2030-01-05", "starts_at_1": "02:00"},
        **{"ends_at_0": "2030-01-05", "ends_at_1": "04:00"},
        **{"recurrence": "FREQ=WEEKLY;BYDAY=SA"},
        **values,
    }


def test_a_silence_knows_who_made_it_and_shows_its_windows(browser: Client) -> None:
    browser.post(SILENCES + "add/", silence_form(), secure=True)
    made = Silence.objects.get()
    assert made.created_by == "ann"
    page = page_of(browser, made)
    for day in ("2030-01-05", "2030-01-12", "2030-01-19", "2030-01-26", "2030-02-02"):
        assert f"{day} 02:00:00" in page
    assert "2030-02-09" not in page
    assert page.count("2 h 00 min") == 5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"recurrence": "every now and then"}, "An RRULE has FREQ="),
        ({"recurrence": "FREQ=DAILY", "ends_at_0": "2030-01-09"}, "It repeats before it ends."),
        ({"ends_at_1": "01:00"}, "It ends before it starts."),
    ],
)
def test_a_silence_that_makes_no_sense_is_refused(
    browser: Client, values: dict[str, str], message: str
) -> None:
    page = browser.post(SILENCES + "add/", silence_form(**values), secure=True)
    assert message in page.content.decode()
    assert not Silence.objects.exists()


def test_a_silence_shows_which_open_alerts_it_is_about(browser: Client, rule: Rule) -> None:
    match, other = raised(rule, "bot-1"), raised(rule, "portal")
    gone = raised(rule, "bot-2")
    Alert.objects.filter(pk=gone.pk).update(resolved_at=timezone.now())
    page = page_of(browser, silence(0, subject="bot-*"))
    assert match.get_absolute_url() in page
    assert other.get_absolute_url() not in page
    assert gone.get_absolute_url() not in page


def test_end_now_ends_what_goes_on_or_would_come(browser: Client) -> None:
    over, active, later = silence(-5), silence(-0.5), silence(3)
    weekly = silence(-500, recurrence="FREQ=WEEKLY")
    ended_at = over.ends_at
    assert "Silences ended: 3." in end_now(browser, over, active, later, weekly)
    now = timezone.now() + timedelta(seconds=1)
    for row in (over, active, later, weekly):
        row.refresh_from_db()
        assert row.ends_at <= now
        assert row.recurrence == ""
        assert row.starts_at <= row.ends_at
    assert over.ends_at == ended_at
    assert browser.get(SILENCES, {"time": "now"}, secure=True).content.decode().count("paint") == 0


def test_the_list_tells_what_is_quiet_now(browser: Client) -> None:
    for hours, comment in ((-5, "They danced."), (-0.5, "They sing."), (3, "They rest.")):
        silence(hours, comment=comment)
    page = browser.get(SILENCES, secure=True).content.decode()
    for state in ("quiet now", "to come", "over"):
        assert state in page
    unfinished = browser.get(SILENCES, {"time": "now"}, secure=True).content.decode()
    assert "They sing." in unfinished
    assert "They danced." not in unfinished


# --- What is known ------------------------------------------------------------------------------


def test_alerts_and_subjects_are_read_only_and_lead_to_the_page(
    browser: Client, rule: Rule
) -> None:
    alert = raised(rule, "bot-1", facts={"x": "y"})
    for row in (alert, alert.subject):
        assert alert.get_absolute_url() in page_of(browser, row)
        path = reverse(f"admin:alerts_{row._meta.model_name}_change", args=[row.pk])
        assert browser.post(path, {"name": "x"}, secure=True).status_code == 403
        assert browser.post(path.replace("change", "delete"), secure=True).status_code == 403


def test_an_operator_silences_but_changes_no_rule(rule: Rule) -> None:
    user = User.objects.create_user("bob", is_staff=True)
    user.groups.add(Group.objects.get(name="Operators"))
    client = Client()
    client.force_login(user)
    client.post(SILENCES + "add/", silence_form(), secure=True)
    assert Silence.objects.get().created_by == "bob"
    path = reverse("admin:alerts_rule_change", args=[rule.pk])
    assert client.post(path, {"needed": 1}, secure=True).status_code == 403
    menu = client.get(SILENCES, secure=True).content.decode()
    assert RULES in menu
    assert "/admin/auth/user/" not in menu
