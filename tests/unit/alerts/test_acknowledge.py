"""Acknowledgements that expire, and those by the link of a message."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from auditlog.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.http import HttpResponse
from django.test import Client

from harness import html_of
from mailing import Clock
from soc.alerts import actions, rounds
from soc.alerts.models import OPEN, Alert, Rule, Silence
from soc.notify import tickets
from soc.notify.models import OutboundMail, Subscription

if TYPE_CHECKING:
    from conftest import Report

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("plain_static_files")]

HOUR = timedelta(hours=1)
FORM = {"name": "Jo", "minutes": "60", "note": "on it"}


def kinds() -> list[str]:
    return list(Alert.objects.get().events.values_list("kind", flat=True))


def anybody() -> Client:
    return Client(enforce_csrf_checks=True)


def path_of(mail: OutboundMail) -> str:
    return mail.acknowledge.partition("8443")[2]


@pytest.fixture
def mail(rule: Rule, subscription: Subscription, report: Report) -> OutboundMail:
    report("critical")
    return OutboundMail.objects.get()


def send(path: str, client: Client, **changes: str) -> HttpResponse:
    """Send the form as a browser does that has read the page."""
    page = client.get(path, secure=True)
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.content.decode())
    form = FORM | changes | ({"csrfmiddlewaretoken": token[1]} if token else {})
    return client.post(path, form, secure=True, headers={"Origin": "https://testserver"})


# --- Acknowledgements that expire ---------------------------------------------------------------


def test_an_acknowledgement_that_expires_lets_the_alert_fire_again(
    rule: Rule, subscription: Subscription, report: Report, clock: Clock
) -> None:
    report("critical")
    assert actions.acknowledge(Alert.objects.all(), "jo", "on it", HOUR) == 1
    alert = Alert.objects.get()
    assert (alert.state, alert.acknowledged_until) == ("acknowledged", clock.now + HOUR)
    assert alert.events.last().text.startswith("on it\nUntil ")
    clock.move(minutes=59)
    assert rounds.run(clock.now) == 0
    clock.move(minutes=1)
    assert rounds.run(clock.now) == 1
    alert.refresh_from_db()
    assert (alert.state, alert.acknowledged_until, alert.acknowledged_at) == ("firing", None, None)
    assert alert.remind_at == clock.now + timedelta(minutes=240)
    assert kinds() == ["fired", "acknowledged", "lapsed"]
    newest = OutboundMail.objects.latest("created_at")
    assert newest.subject == "NO LONGER ACKNOWLEDGED, CRITICAL: bot-1: It is critical (local)"
    assert rounds.run(clock.now) == 0


def test_one_without_an_end_stays(rule: Rule, report: Report, clock: Clock) -> None:
    report("critical")
    actions.acknowledge(Alert.objects.all(), "jo")
    clock.move(days=30)
    rounds.run(clock.now)
    assert kinds() == ["fired", "acknowledged"]
    assert actions.acknowledge(Alert.objects.all(), "ann", lasting=HOUR) == 0


def test_one_that_expires_can_be_given_again_and_by_somebody_else(
    rule: Rule, report: Report, clock: Clock
) -> None:
    report("critical")
    actions.acknowledge(Alert.objects.all(), "jo", lasting=HOUR)
    clock.move(minutes=50)
    assert actions.acknowledge(Alert.objects.all(), "ann", lasting=HOUR) == 1
    clock.move(minutes=30)
    rounds.run(clock.now)
    alert = Alert.objects.get()
    assert (alert.state, alert.acknowledged_by) == ("acknowledged", "ann")


def test_it_ends_into_the_silence_that_has_begun(
    rule: Rule, subscription: Subscription, report: Report, clock: Clock
) -> None:
    report("critical")
    actions.acknowledge(Alert.objects.all(), "jo", lasting=HOUR)
    clock.move(hours=1)
    Silence.objects.create(comment="work", starts_at=clock.now, ends_at=clock.now + HOUR)
    assert rounds.run(clock.now) == 0
    assert Alert.objects.get().state == "suppressed"
    assert Alert.objects.get().acknowledged_until is None


def test_what_gets_worse_or_ends_has_no_acknowledgement_to_expire(
    rule: Rule, report: Report, clock: Clock
) -> None:
    report("warning")
    actions.acknowledge(Alert.objects.all(), "jo", lasting=HOUR)
    report("critical")
    assert Alert.objects.get().acknowledged_until is None
    actions.acknowledge(Alert.objects.all(), "jo", lasting=HOUR)
    report("ok")
    assert Alert.objects.get().acknowledged_until is None


def test_a_flapping_alert_waits_for_a_person_again_and_makes_no_noise(
    rule: Rule, subscription: Subscription, report: Report, clock: Clock
) -> None:
    for severity in ("critical", "ok") * 3:
        report(severity)
    assert actions.acknowledge(Alert.objects.filter(OPEN), "jo", lasting=timedelta(minutes=1)) == 1
    mails = OutboundMail.objects.count()
    clock.move(minutes=1)
    rounds.run(clock.now)
    alert = Alert.objects.get(OPEN)
    assert (alert.state, alert.acknowledged_at) == ("flapping", None)
    assert OutboundMail.objects.count() == mails


def flapping(report: Report, severity: str = "critical") -> Alert:
    for one in (severity, "ok", severity, "ok", severity):
        report(one)
    return Alert.objects.get(state="flapping")


@pytest.mark.parametrize("by_report", [True, False])
def test_an_acknowledged_alert_that_stops_flapping_is_no_news(
    rule: Rule, subscription: Subscription, report: Report, clock: Clock, by_report: bool
) -> None:
    flapping(report)
    actions.acknowledge(Alert.objects.filter(OPEN), "jo", lasting=2 * HOUR)
    mails = OutboundMail.objects.count()
    clock.move(minutes=40)
    assert report("critical").outcome == "steady" if by_report else not rounds.run(clock.now)
    alert = Alert.objects.get(OPEN)
    assert (alert.state, alert.acknowledged_by) == ("acknowledged", "jo")
    assert alert.remind_at is None
    assert OutboundMail.objects.count() == mails
    # What was to expire still does.
    assert rounds.run(clock.move(hours=2)) == 1
    assert Alert.objects.get(OPEN).state == "firing"


def test_an_acknowledged_alert_stops_flapping_in_a_silence_and_stays_acknowledged(
    rule: Rule, report: Report, clock: Clock
) -> None:
    flapping(report)
    actions.acknowledge(Alert.objects.filter(OPEN), "jo")
    Silence.objects.create(comment="work", ends_at=clock.now + HOUR)
    clock.move(minutes=40)
    report("critical")
    assert Alert.objects.get(OPEN).state == "acknowledged"


def test_what_flaps_worse_than_was_acknowledged_waits_for_a_person(
    rule: Rule, subscription: Subscription, report: Report, clock: Clock
) -> None:
    flapping(report, "warning")
    actions.acknowledge(Alert.objects.filter(OPEN), "jo")
    mails = OutboundMail.objects.count()
    assert report("critical").outcome == "worse"
    alert = Alert.objects.get(OPEN)
    assert (alert.state, alert.acknowledged_at) == ("flapping", None)
    assert OutboundMail.objects.count() == mails, "flapping makes no noise"
    assert rounds.run(clock.move(minutes=40)) == 1
    assert Alert.objects.get(OPEN).state == "firing"


def test_an_acknowledgement_that_has_ended_is_not_taken_for_one_later(
    rule: Rule, report: Report
) -> None:
    """Acknowledged, then worse and nobody's: what flaps after that is nobody's either."""
    report("warning")
    actions.acknowledge(Alert.objects.all(), "jo")
    report("critical")
    assert Alert.objects.get().acknowledged_at is None


def test_an_acknowledgement_that_is_to_expire_does_so_although_the_alert_flaps(
    rule: Rule, report: Report, clock: Clock
) -> None:
    for severity in ("critical", "ok", "critical", "ok"):
        report(severity)
    Rule.objects.update(flap_changes=6)
    report("critical")
    actions.acknowledge(Alert.objects.filter(OPEN), "jo", lasting=timedelta(minutes=10))
    report("ok")
    alert = Alert.objects.get(OPEN)
    assert (alert.state, alert.acknowledged_until is None) == ("flapping", False)
    rounds.run(clock.move(minutes=10))
    assert Alert.objects.get(OPEN).acknowledged_at is None


# --- By link ------------------------------------------------------------------------------------


def test_every_message_about_an_open_alert_has_a_link_of_its_own(
    mail: OutboundMail, report: Report
) -> None:
    assert mail.acknowledge.startswith("https://")
    assert mail.acknowledge in mail.text
    assert f'href="{mail.acknowledge}"' in mail.html
    assert len(mail.ticket) * 6 >= 256
    OutboundMail.objects.update(state="sent", next_try_at=None)
    report("ok")
    last = OutboundMail.objects.get(status="resolved")
    assert (last.acknowledge, "/acknowledge/" in last.text) == ("", False)


def test_a_subscription_without_links_has_none(
    rule: Rule, subscription: Subscription, report: Report
) -> None:
    Subscription.objects.update(acknowledge_links=False)
    report("critical")
    mail = OutboundMail.objects.get()
    assert "/acknowledge/" not in mail.text + mail.html + mail.acknowledge


@pytest.mark.parametrize("method", ["get", "head"])
def test_reading_acknowledges_nothing(mail: OutboundMail, method: str) -> None:
    """Scanners of mails follow links."""
    answer = getattr(anybody(), method)(path_of(mail), secure=True)
    assert answer.status_code == 200
    assert answer["Cache-Control"].startswith("max-age=0")
    assert kinds() == ["fired"]


def test_a_form_without_the_page_before_it_acknowledges_nothing(mail: OutboundMail) -> None:
    assert anybody().post(path_of(mail), FORM, secure=True).status_code == 403
    assert kinds() == ["fired"]


def test_one_confirmation_acknowledges_for_a_time(mail: OutboundMail, clock: Clock) -> None:
    answer = send(path_of(mail), client := anybody())
    assert answer.status_code == 302
    alert = Alert.objects.get()
    assert (alert.state, alert.acknowledged_by) == ("acknowledged", "Jo (link of ops)")
    assert (alert.note, alert.acknowledged_until) == ("on it", clock.now + HOUR)
    page = client.get(path_of(mail), secure=True).content.decode()
    assert "Jo (link of ops)" in page
    clock.move(hours=1)
    assert rounds.run(clock.now) == 1


def test_the_audit_log_says_who_which_message_and_from_where(mail: OutboundMail) -> None:
    send(path_of(mail), anybody())
    entry = LogEntry.objects.get(content_type__model="alert")
    assert entry.object_repr == "tests/works: bot-1"
    assert entry.remote_addr == "127.0.0.1"
    assert entry.additional_data == {
        "event": f"Acknowledged by the link of message {mail.pk}",
        "who": "Jo (link of ops)",
    }


def test_a_person_who_has_signed_in_needs_the_permission(mail: OutboundMail) -> None:
    user = User.objects.create_user("bob")
    client = anybody()
    client.force_login(user)
    assert send(path_of(mail), client).status_code == 403
    assert kinds() == ["fired"]
    user.user_permissions.add(Permission.objects.get(codename="operate_alert"))
    assert send(path_of(mail), client, name="somebody else").status_code == 302
    assert Alert.objects.get().acknowledged_by == "bob"


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [("name", " ", "required"), ("minutes", "10080", "valid choice"), ("minutes", "", "required")],
)
def test_what_is_left_out_or_too_long_is_asked_for_again(
    mail: OutboundMail, field: str, value: str, words: str
) -> None:
    answer = send(path_of(mail), anybody(), **{field: value})
    assert answer.status_code == 200
    assert words in answer.content.decode()
    assert kinds() == ["fired"]


@pytest.mark.parametrize(
    ("spoil", "status"),
    [
        (lambda path: path[:-3] + "xx/", 404),
        (lambda path: path.replace("/acknowledge/", "/acknowledge/1"), 404),
        (lambda path: "/acknowledge/00000000-0000-0000-0000-000000000000/x/", 404),
    ],
)
def test_a_wrong_link_shows_nothing(mail: OutboundMail, spoil: object, status: int) -> None:
    answer = anybody().get(spoil(path_of(mail)), secure=True)
    assert answer.status_code == status
    assert b"bot-1" not in answer.content


@pytest.mark.parametrize(
    "change",
    [{"acknowledge_links": False}, {"enabled": False}],
)
def test_switching_links_off_ends_those_that_are_out(
    mail: OutboundMail, change: dict[str, bool]
) -> None:
    Subscription.objects.update(**change)
    answer = anybody().get(path_of(mail), secure=True)
    assert answer.status_code == 410
    assert b"bot-1" not in answer.content


def test_a_link_ends_a_day_after_its_message_went_out(mail: OutboundMail, clock: Clock) -> None:
    OutboundMail.objects.update(sent_at=clock.now + HOUR)
    clock.move(hours=24, minutes=59)
    assert anybody().get(path_of(mail), secure=True).status_code == 200
    clock.move(minutes=1)
    assert anybody().get(path_of(mail), secure=True).status_code == 410
    assert Client().post(path_of(mail), FORM, secure=True).status_code == 410
    assert kinds() == ["fired"]


def test_a_message_without_a_link_is_opened_by_no_secret(mail: OutboundMail) -> None:
    OutboundMail.objects.update(ticket="")
    with pytest.raises(LookupError):
        tickets.find(str(mail.pk), "")


def test_a_link_acknowledges_its_own_alert_and_nothing_that_is_over(
    mail: OutboundMail, report: Report
) -> None:
    report("critical", subject="bot-2")
    report("ok")
    page = html_of(anybody().get(path_of(mail), secure=True))
    assert "there is nothing left to do" in page
    assert Client().post(path_of(mail), FORM, secure=True).status_code == 302
    assert set(Alert.objects.values_list("state", flat=True)) == {"firing", "resolved"}


def test_who_looks_at_mail_in_the_admin_gets_no_link(mail: OutboundMail, browser: Client) -> None:
    page = browser.get(f"/admin/notify/outboundmail/{mail.pk}/change/", secure=True)
    assert mail.ticket not in page.content.decode()
    assert "(not shown)" in page.content.decode()


def test_markup_of_an_alert_or_a_name_stays_text(
    rule: Rule, subscription: Subscription, report: Report
) -> None:
    report("critical", subject="<script>x</script>", summary="<img src=x>")
    path = path_of(OutboundMail.objects.get())
    send(path, client := anybody(), name="<b>Jo</b>")
    page = client.get(path, secure=True).content.decode()
    assert "<script>x" not in page
    assert "<img src=x" not in page
    assert "&lt;b&gt;Jo" in page
