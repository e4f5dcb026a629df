"""The upgrade of a site that has mail: nothing is lost, and what was sent is known."""

from __future__ import annotations

from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest
from django.apps import apps
from django.utils import timezone

from mailing import FakeRelay, states
from soc.notify import delivery
from soc.notify.models import OutboundMail, Subscription

pytestmark = pytest.mark.django_db

carry_over = import_module("soc.notify.migrations.0004_carry_over").carry_over


def test_an_upgrade_keeps_states_and_queued_mail(relay: FakeRelay) -> None:
    subscription = Subscription.objects.create(
        name="ops",
        recipients="a@x.internal",
        tags="SOC",
        subject_template="{{ severity|upper }}: {{ title }} ({{ site }})",
    )
    Subscription.objects.create(
        name="own", recipients="a@x.internal", subject_template="Mine: {{ title }}"
    )

    def mail(key: str, **values: Any) -> None:
        OutboundMail.objects.create(
            dedupe_key=key, subscription=subscription, subject=key, text="t", html="h",
            recipients=["a@x.internal", "b@x.internal"],
            created_at=timezone.now() - timedelta(days=1), **values,
        )  # fmt: skip

    mail("queued")
    mail("claimed", state="sending", attempts=1)
    mail("sent", state="sent", attempts=1, next_try_at=None)
    words = "The relay answered 550 No such user"
    partly = f"b@x.internal: {words}"
    mail("partly", state="sent", attempts=1, next_try_at=None, last_error=partly)
    mail("failed", state="failed", attempts=1, next_try_at=None, last_error="550")
    carry_over(apps, None)
    now = {mail.dedupe_key: mail for mail in OutboundMail.objects.all()}
    both = ["a@x.internal", "b@x.internal"]
    assert now["sent"].delivered == both
    assert (now["partly"].delivered, now["partly"].refused) == (both[:1], {both[1]: words})
    assert now["failed"].refused == dict.fromkeys(both, "550")
    assert now["claimed"].alone, "it may have been sent"
    assert all(mail.title == key for key, mail in now.items())
    subjects = dict(Subscription.objects.values_list("name", "subject_template"))
    assert subjects["own"] == "Mine: {{ title }}"
    assert subjects["ops"].startswith("{{ status|upper }}")
    assert delivery.send_due() == 2
    assert states() == {"sent": 4, "failed": 1}
    assert [mail.rcpt_tos for mail in relay.mails] == [both, both]
