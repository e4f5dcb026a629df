"""The admin's pages of subscriptions and mail: forms, tests, and what became of a mail."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from mailing import NOTICE, Clock, FakeRelay, Outage, states
from soc.notify import delivery, outbox, relay
from soc.notify.models import OutboundMail, Subscription

pytestmark = pytest.mark.django_db

MAILS = "/admin/notify/outboundmail/"


def form(**values: Any) -> dict[str, Any]:
    return {
        **{"name": "mine", "enabled": "on", "recipients": "a@health.internal", "tags": ""},
        **{"channel": "email", "url": "", "secret": ""},
        **{"fallback_recipients": "", "minimum_severity": 10, "applications": ""},
        **{"quiet_from": "", "quiet_until": "", "quiet_breakthrough": 30, "digest_minutes": 0},
        **{"storm_limit": 10, "report": "none", "report_at": "07:00"},
        **{"subject_template": "{{ title }}", "text_template": "{{ summary }}"},
        **values,
    }


def save(browser: Client, **values: Any) -> str:
    path = reverse("admin:notify_subscription_add")
    return browser.post(path, form(**values), secure=True).content.decode()


def test_a_good_subscription_is_saved_and_its_first_report_planned(browser: Client) -> None:
    save(browser, report="daily", quiet_from="22:00", quiet_until="06:00", csv="on")
    subscription = Subscription.objects.get()
    assert subscription.csv
    assert subscription.next_report_at
    assert timezone.now() < subscription.next_report_at <= timezone.now() + timedelta(days=1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"recipients": "good@x.internal\nnobody"}, "Not a mail address: nobody"),
        ({"fallback_recipients": "nobody"}, "Not a mail address: nobody"),
        ({"applications": "mars"}, "Not an application: mars"),
        ({"quiet_from": "22:00"}, "need a start and an end"),
        ({"text_template": "a\n{% nothing %}"}, "line 2, {% nothing %}"),
        ({"subject_template": "{{ title|nothing }}"}, "line 1, {{ title|nothing }}"),
        ({"storm_limit": 0}, "greater than or equal to 1"),
        ({"digest_minutes": 2000}, "less than or equal to 1440"),
        ({"tags": "a\r\nBcc: x"}, "Not a tag"),
    ],
)
def test_a_bad_subscription_is_refused_at_the_form(
    browser: Client, values: dict[str, Any], message: str
) -> None:
    assert message in save(browser, **values)
    assert not Subscription.objects.exists()


def test_a_changed_report_is_planned_anew_and_an_unchanged_one_is_kept(
    browser: Client, subscription: Subscription
) -> None:
    past = timezone.now() - timedelta(minutes=1)
    Subscription.objects.update(report="daily", next_report_at=past)
    path = reverse("admin:notify_subscription_change", args=[subscription.pk])
    browser.post(path, form(report="daily", tags="NEW"), secure=True)
    subscription.refresh_from_db()
    assert (subscription.tags, subscription.next_report_at) == ("NEW", past)
    browser.post(path, form(report="weekly"), secure=True)
    subscription.refresh_from_db()
    assert subscription.next_report_at
    assert subscription.next_report_at > timezone.now()


# --- Tests --------------------------------------------------------------------------------------


def send_test(subscription: Subscription) -> str:
    return reverse("admin:notify_subscription_send_test", args=[subscription.pk])


def test_a_test_asks_first_and_looking_sends_nothing(
    browser: Client, subscription: Subscription
) -> None:
    page = browser.get(send_test(subscription), secure=True).content.decode()
    assert "a@health.internal, b@health.internal" in page
    assert "Your account has no mail address" in page
    assert states() == {}


def test_an_administrator_sends_a_test_to_himself(
    browser: Client, subscription: Subscription, relay: FakeRelay
) -> None:
    User.objects.update(email="ann@health.internal")
    Subscription.objects.update(digest_minutes=60)
    page = browser.post(send_test(subscription), {"to": "me"}, secure=True, follow=True)
    mail = OutboundMail.objects.get()
    assert page.request["PATH_INFO"] == f"{MAILS}{mail.pk}/change/"
    assert "A test to ann@health.internal goes out within 30 s" in page.content.decode()
    assert delivery.send_due() == 1
    assert relay.mails[0].rcpt_tos == ["ann@health.internal"]
    assert relay.subjects == [
        "TEST: [SOC] [CERT] WARNING: Certificate of www.soc.internal:443: expires soon (local)"
    ]
    shown = browser.get(f"{MAILS}{mail.pk}/change/", secure=True).content.decode()
    assert "Sent" in shown


def test_a_test_to_the_recipients(
    browser: Client, subscription: Subscription, relay: FakeRelay
) -> None:
    for _ in range(2):
        browser.post(send_test(subscription), {"to": "recipients"}, secure=True)
    assert delivery.send_due() == 2
    assert relay.mails[0].rcpt_tos == subscription.addresses


@pytest.mark.parametrize("to", ["me", "", "thief@evil.internal"])
def test_a_test_goes_to_nobody_else(browser: Client, subscription: Subscription, to: str) -> None:
    browser.post(send_test(subscription), {"to": to}, secure=True)
    assert states() == {}


def test_a_switched_off_subscription_gets_no_test(
    browser: Client, subscription: Subscription
) -> None:
    Subscription.objects.update(enabled=False)
    page = browser.post(send_test(subscription), {"to": "recipients"}, secure=True)
    assert "This subscription is switched off" in page.content.decode()
    assert states() == {}


def test_who_may_only_look_sends_no_test(
    plain_static_files: None, subscription: Subscription
) -> None:
    user = User.objects.create_user("bob", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_subscription"))
    client = Client()
    client.force_login(user)
    answer = client.post(send_test(subscription), {"to": "recipients"}, secure=True)
    assert answer.status_code == 403
    assert states() == {}


# --- Mail ---------------------------------------------------------------------------------------


def test_the_list_says_that_the_relay_is_down(browser: Client) -> None:
    relay.mark_down(OSError("no route to host"), timezone.now())
    page = browser.get(MAILS, secure=True).content.decode()
    assert "The relay has been down since" in page
    assert "no route to host" in page


def test_a_digest_links_to_its_notices(
    browser: Client, subscription: Subscription, relay: FakeRelay
) -> None:
    for number in range(11):
        outbox.enqueue(NOTICE, f"occasion {number}")
    delivery.send_due()
    digest = OutboundMail.objects.get(kind="digest")
    page = browser.get(f"{MAILS}{digest.pk}/change/", secure=True).content.decode()
    assert f'href="{MAILS}?digest__id__exact={digest.pk}">11</a>' in page
    members = browser.get(MAILS, {"digest__id__exact": digest.pk}, secure=True)
    assert members.status_code == 200
    assert members.context["cl"].result_count == 11


def test_try_again_asks_the_relay_and_the_recipients_anew(
    browser: Client, subscription: Subscription, outage: Outage, clock: Clock
) -> None:
    outbox.enqueue(NOTICE, "refused")
    outage.start()
    outage.handler.recipient_reply = "550 5.1.1 No such user"
    delivery.send_due()
    outage.stop()
    outbox.enqueue(NOTICE, "expired")
    delivery.send_due()
    clock.move(hours=5)
    delivery.send_due()
    assert states() == {"failed": 1, "expired": 1}
    outage.handler.recipient_reply = "250 OK"
    outage.start()
    rows = [mail.pk for mail in OutboundMail.objects.all()]
    data = {"action": "try_again", "_selected_action": rows}
    page = browser.post(MAILS, data, secure=True, follow=True).content.decode()
    assert "2 mails are due now" in page
    assert delivery.send_due() == 2
    assert states() == {"sent": 2}
