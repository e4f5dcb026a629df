"""The admin's form of a subscription whose channel posts."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from soc.notify.models import Subscription

pytestmark = pytest.mark.django_db

SECRET = "one-secret"


def form(**values: Any) -> dict[str, Any]:
    return {
        **{"name": "mine", "enabled": "on", "recipients": "", "tags": "", "channel": "webhook"},
        **{"url": "https://hooks.internal/x", "secret": SECRET},
        **{"fallback_recipients": "", "minimum_severity": 10, "applications": ""},
        **{"quiet_from": "", "quiet_until": "", "quiet_breakthrough": 30, "digest_minutes": 0},
        **{"storm_limit": 10, "report": "none", "report_at": "07:00"},
        **{"subject_template": "{{ title }}", "text_template": "{{ summary }}"},
        **values,
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"url": "http://hooks.internal/x"}, "use https://host/path"),
        ({"url": "https://other.internal/x"}, "not among SOC_WEBHOOK_HOSTS"),
        ({"secret": ""}, "A secret is needed: it signs each message."),
        ({"secret": "ü"}, "Invalid secret"),
        ({"recipients": "a@health.internal"}, "leave the recipients empty"),
        ({"channel": "email"}, "At least one recipient is needed, or a rota."),
        ({"channel": "email", "recipients": "a@health.internal"}, "E-mail has recipients instead."),
        ({"channel": "pagerduty", "report": "daily"}, "it takes no reports"),
        ({"channel": "pagerduty", "digest_minutes": 5}, "use 0"),
        ({"channel": "ntfy", "url": "https://hooks.internal"}, "it ends in the topic"),
        ({"channel": "ntfy", "url": "https://hooks.internal/soc.alerts"}, "letters, digits"),
        ({"channel": "ntfy", "url": f"https://hooks.internal/{'t' * 65}"}, "1 to 64"),
        ({"channel": "pigeon"}, "not one of the available choices"),
    ],
)
def test_a_bad_destination_is_refused_at_the_form(
    browser: Client, settings: Any, values: dict[str, Any], message: str
) -> None:
    settings.WEBHOOK_HOSTS = ["hooks.internal"]
    path = reverse("admin:notify_subscription_add")
    page = browser.post(path, form(**values), secure=True).content.decode()
    assert message in page
    assert not Subscription.objects.exists()


def test_an_address_and_a_secret_are_sealed_and_shown_to_nobody(
    browser: Client, settings: Any
) -> None:
    settings.WEBHOOK_HOSTS = ["hooks.internal"]
    path = reverse("admin:notify_subscription_add")
    browser.post(path, form(url="https://hooks.internal/T000/key"), secure=True)
    made = Subscription.objects.get()
    assert (made.url.reveal(), made.secret.reveal()) == ("https://hooks.internal/T000/key", SECRET)
    page = reverse("admin:notify_subscription_change", args=(made.pk,))
    for shown in (page, reverse("admin:notify_subscription_changelist")):
        text = browser.get(shown, secure=True).content.decode()
        assert "T000" not in text
        assert SECRET not in text
        assert "hooks.internal" in text or shown == page
    # Saved again with both left empty, it keeps them; the channel stays whatever is posted.
    browser.post(page, form(url="", secret="", channel="slack", name="other"), secure=True)
    made.refresh_from_db()
    assert (made.name, made.channel, made.url_host) == ("other", "webhook", "hooks.internal")
    assert made.secret.reveal() == SECRET
