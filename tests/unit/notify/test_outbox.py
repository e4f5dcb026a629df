"""The outbox: who gets a mail about what, once, and what is taken back."""

from __future__ import annotations

from datetime import datetime, time, timedelta

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.db import transaction
from django.utils import timezone

from mailing import NOTICE, Clock, FakeRelay, Outage, states
from soc.core.severity import Severity
from soc.notify import delivery, outbox, templates
from soc.notify.models import LIFE, OutboundMail, Subscription
from soc.notify.templates import Notice

pytestmark = pytest.mark.django_db

RESOLVED = Notice("A title", Severity.OK, "It is over.", {}, status="resolved")


@pytest.fixture
def other() -> Subscription:
    return Subscription.objects.create(name="two", recipients="c@health.internal")


def test_a_notice_is_queued_once_per_subscription_and_occasion(
    subscription: Subscription, other: Subscription
) -> None:
    assert outbox.enqueue(NOTICE, "occasion") == 2
    assert outbox.enqueue(NOTICE, "occasion") == 0
    assert outbox.enqueue(NOTICE, "another") == 2


def test_a_disabled_subscription_gets_nothing(subscription: Subscription) -> None:
    subscription.enabled = False
    subscription.save()
    assert outbox.enqueue(NOTICE, "occasion") == 0
    assert outbox.enqueue(NOTICE, "named", to=[subscription]) == 0


def test_a_subscription_gets_only_what_it_wants(
    subscription: Subscription, other: Subscription
) -> None:
    Subscription.objects.filter(pk=subscription.pk).update(minimum_severity=Severity.CRITICAL)
    Subscription.objects.filter(pk=other.pk).update(applications="ssl_certs")
    assert outbox.enqueue(NOTICE, "a") == 1, "one of no application is for all"
    events = Notice("t", Severity.CRITICAL, "s", {}, application="events")
    assert outbox.enqueue(events, "b") == 1
    assert OutboundMail.objects.get(dedupe_key__startswith="b").subscription == subscription


def test_named_subscriptions_get_it_whatever_they_want_else(
    subscription: Subscription, other: Subscription
) -> None:
    Subscription.objects.update(minimum_severity=Severity.CRITICAL)
    assert outbox.enqueue(NOTICE, "occasion", to=iter([other, other])) == 1
    assert OutboundMail.objects.get().subscription == other


def test_a_named_subscription_that_does_not_exist_is_skipped(
    subscription: Subscription, other: Subscription, caplog: pytest.LogCaptureFixture
) -> None:
    Subscription.objects.filter(pk=other.pk).delete()
    assert outbox.enqueue(NOTICE, "a", to=[other, Subscription(name="new"), subscription]) == 1
    assert "2 of 3 subscriptions do not exist" in caplog.text


def test_many_notices_have_topics_of_their_own(subscription: Subscription) -> None:
    notices = {f"{number}": NOTICE for number in range(3)}
    assert outbox.enqueue_all(notices, topics={"0": "alert:1", "1": "alert:2"}) == 3
    topics = OutboundMail.objects.order_by("dedupe_key").values_list("topic", flat=True)
    assert list(topics) == ["alert:1", "alert:2", ""]


def test_keys_that_a_collation_takes_for_one_are_two(subscription: Subscription) -> None:
    keys = ["host", "Host", "h\u00f6st", "host ", "x" * 500, "x" * 501, "a\nb", "\ud800"]
    kept = [outbox.canonical(key) for key in keys]
    folded = {key.casefold().rstrip() for key in kept}
    assert len(folded) == len(keys)
    assert all(len(key) <= outbox.LONGEST_KEY for key in kept)
    assert kept[0] == "host"
    for key in keys:
        assert outbox.enqueue(NOTICE, key, topic=key) == 1
        assert outbox.enqueue(NOTICE, key, topic=key) == 0


def test_a_template_that_fails_costs_no_mail(
    subscription: Subscription, other: Subscription, caplog: pytest.LogCaptureFixture
) -> None:
    Subscription.objects.filter(name="ops").update(text_template="{{ 5|divisibleby:0 }}")
    Subscription.objects.filter(name="two").update(text_template="Mine")
    assert outbox.enqueue(NOTICE, "occasion") == 2
    broken, good = OutboundMail.objects.order_by("subscription__name")
    assert broken.subject == "[SOC] [CERT] WARNING: A title (local)"
    assert "A summary." in broken.text
    assert good.text == "Mine"
    assert "ops gets the default texts" in caplog.text


def test_a_time_limit_is_not_taken_for_a_template_that_fails(
    subscription: Subscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_time(*_: object, **__: object) -> None:
        raise SoftTimeLimitExceeded

    monkeypatch.setattr(templates, "render", out_of_time)
    with pytest.raises(SoftTimeLimitExceeded):
        outbox.enqueue(NOTICE, "occasion")


def test_a_mail_lives_for_four_hours_from_when_it_is_due(
    subscription: Subscription, clock: Clock
) -> None:
    Subscription.objects.update(digest_minutes=60)
    outbox.enqueue(NOTICE, "occasion")
    mail = OutboundMail.objects.get()
    assert mail.next_try_at == clock.now + timedelta(hours=1)
    assert mail.expires_at == mail.next_try_at + LIFE


def test_a_table_is_attached_for_those_who_want_it(
    subscription: Subscription, other: Subscription, relay: FakeRelay
) -> None:
    Subscription.objects.filter(pk=other.pk).update(csv=True)
    table = "name,value\r\nü,1\r\n"
    outbox.enqueue(Notice("t", Severity.INFO, "s", {}, csv=table), "occasion")
    assert delivery.send_due() == 2
    attached = {
        message["To"]: [part.get_content() for part in message.iter_attachments()]
        for message in relay.messages
    }
    assert attached == {"a@health.internal, b@health.internal": [], "c@health.internal": [table]}


# --- Concluding and withdrawing -----------------------------------------------------------------


def test_what_is_over_before_anybody_heard_of_it_is_not_mailed(subscription: Subscription) -> None:
    outbox.enqueue(NOTICE, "open", topic="alert:1")
    assert outbox.conclude(RESOLVED, "close", topic="alert:1") == 0
    assert states() == {"withdrawn": 1}
    assert OutboundMail.objects.get().next_try_at is None


def test_only_those_who_were_told_hear_of_the_end(
    subscription: Subscription, other: Subscription, relay: FakeRelay
) -> None:
    outbox.enqueue(NOTICE, "open", topic="alert:1", to=[subscription])
    delivery.send_due()
    outbox.enqueue(NOTICE, "worse", topic="alert:1")
    assert outbox.conclude(RESOLVED, "close", topic="alert:1") == 1
    delivery.send_due()
    assert states() == {"sent": 2, "withdrawn": 2}
    assert relay.subjects[-1] == "[SOC] [CERT] RESOLVED: A title (local)"


def test_a_topic_that_is_concluded_twice_is_mailed_once(
    subscription: Subscription, relay: FakeRelay
) -> None:
    outbox.enqueue(NOTICE, "open", topic="alert:1")
    delivery.send_due()
    assert outbox.conclude(RESOLVED, "close", topic="alert:1") == 1
    assert outbox.conclude(RESOLVED, "close again", topic="alert:1") == 0
    assert delivery.send_due() == 1


def test_a_topic_that_comes_back_counts_anew(subscription: Subscription, relay: FakeRelay) -> None:
    outbox.enqueue(NOTICE, "open", topic="disk")
    delivery.send_due()
    outbox.conclude(RESOLVED, "close", topic="disk")
    outbox.enqueue(NOTICE, "open 2", topic="disk")
    assert outbox.conclude(RESOLVED, "close 2", topic="disk") == 0, "nobody heard of it this time"
    delivery.send_due()
    assert [subject.split()[2] for subject in relay.subjects] == ["WARNING:", "RESOLVED:"]


def test_a_conclusion_that_is_rolled_back_has_not_happened(
    subscription: Subscription, relay: FakeRelay
) -> None:
    outbox.enqueue(NOTICE, "open", topic="alert:1")
    with transaction.atomic():
        outbox.conclude(RESOLVED, "close", topic="alert:1")
        transaction.set_rollback(True)
    assert delivery.send_due() == 1


def test_a_mail_in_a_workers_hand_is_not_tried_again_once_it_is_over(
    subscription: Subscription, relay: FakeRelay
) -> None:
    outbox.enqueue(NOTICE, "open", topic="alert:1")
    (mail,) = delivery._claim().mails
    assert outbox.conclude(RESOLVED, "close", topic="alert:1") == 1, "it counts as told"
    delivery._postpone(mail, "451 later", 451, alone=False)
    assert states() == {"withdrawn": 1, "queued": 1}


def test_a_mail_whose_worker_died_is_not_tried_again_once_it_is_over(
    subscription: Subscription, relay: FakeRelay, clock: Clock
) -> None:
    outbox.enqueue(NOTICE, "open", topic="alert:1")
    delivery._claim()
    outbox.withdraw(["alert:1"])
    clock.move(minutes=3)
    assert delivery.send_due() == 0
    assert states() == {"withdrawn": 1}


def test_topics_are_withdrawn_without_a_last_mail(
    subscription: Subscription, relay: FakeRelay
) -> None:
    for number in range(3):
        outbox.enqueue(NOTICE, f"open:{number}", topic=f"alert:{number}")
    assert outbox.withdraw(iter(["alert:0", "alert:2", "unknown", ""])) == 2
    assert delivery.send_due() == 1


def test_the_last_mail_is_not_withdrawn_itself(subscription: Subscription, outage: Outage) -> None:
    outage.start()
    outbox.enqueue(NOTICE, "open", topic="alert:1")
    delivery.send_due()
    outbox.conclude(RESOLVED, "close", topic="alert:1")
    assert outbox.withdraw(["alert:1"]) == 0
    assert delivery.send_due() == 1


def test_the_end_of_what_woke_somebody_is_not_held_until_morning(
    subscription: Subscription, relay: FakeRelay, clock: Clock
) -> None:
    clock.now = datetime(2026, 3, 2, 23, tzinfo=clock.now.tzinfo)
    Subscription.objects.update(quiet_from=time(22), quiet_until=time(6))
    critical = Notice("t", Severity.CRITICAL, "s", {})
    outbox.enqueue(critical, "open", topic="alert:1")
    outbox.enqueue(NOTICE, "held", topic="alert:2")
    assert delivery.send_due() == 1
    outbox.conclude(RESOLVED, "close", topic="alert:1")
    clock.move(seconds=1)
    assert delivery.send_due() == 1
    assert states() == {"sent": 2, "queued": 1}
    assert timezone.localtime(OutboundMail.objects.get(state="queued").next_try_at).hour == 6
