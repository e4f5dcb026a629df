"""Digests: when many notices become one mail, and what it holds."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, time

import pytest
from django.utils import timezone

from mailing import NOTICE, Clock, FakeRelay, Outage, states
from soc.core.severity import Severity
from soc.notify import delivery, digest, outbox
from soc.notify.models import OutboundMail, Subscription
from soc.notify.templates import Notice

pytestmark = pytest.mark.django_db

RESOLVED = Notice("It", Severity.OK, "It is over.", {}, status="resolved")


def enqueue(count: int, severity: Severity = Severity.WARNING, start: int = 0) -> None:
    for number in range(start, start + count):
        notice = Notice(f"Number <{number}>", severity, "s", {}, f"https://x/{number}")
        outbox.enqueue(notice, f"{severity}:{number}", topic=f"alert:{number}")


def test_a_storm_becomes_one_digest(subscription: Subscription, relay: FakeRelay) -> None:
    enqueue(subscription.storm_limit + 1)
    assert delivery.send_due() == 1
    assert relay.subjects == ["[SOC] [CERT] DIGEST: 11 notices, 11 warning (local)"]
    assert states() == {"digested": 11, "sent": 1}
    mail = OutboundMail.objects.get(kind="digest")
    assert mail.members.count() == 11
    assert mail.recipients == ["a@health.internal", "b@health.internal"]


def test_a_few_notices_are_no_storm(subscription: Subscription, relay: FakeRelay) -> None:
    enqueue(subscription.storm_limit)
    assert delivery.send_due() == subscription.storm_limit
    assert states() == {"sent": subscription.storm_limit}


def test_a_storm_of_one_subscription_is_no_storm_of_another(
    subscription: Subscription, relay: FakeRelay
) -> None:
    Subscription.objects.create(name="two", recipients="c@health.internal", storm_limit=50)
    enqueue(12)
    assert delivery.send_due() == 13


def test_notices_are_gathered_for_the_digest_interval(
    subscription: Subscription, relay: FakeRelay, clock: Clock
) -> None:
    Subscription.objects.update(digest_minutes=30)
    enqueue(2)
    clock.move(minutes=20)
    enqueue(1, start=2)
    assert delivery.send_due() == 0
    clock.move(minutes=10)
    assert delivery.send_due() == 1, "the first is due and takes the others along"
    assert relay.subjects == ["[SOC] [CERT] DIGEST: 3 notices, 3 warning (local)"]
    clock.move(hours=1)
    assert delivery.send_due() == 0


def test_a_digest_of_one_is_just_the_mail(
    subscription: Subscription, relay: FakeRelay, clock: Clock
) -> None:
    Subscription.objects.update(digest_minutes=30)
    enqueue(1)
    clock.move(minutes=30)
    assert delivery.send_due() == 1
    assert relay.subjects == ["[SOC] [CERT] WARNING: Number <0> (local)"]


@pytest.fixture
def evening(subscription: Subscription, clock: Clock) -> Clock:
    """Half past nine; the subscription's quiet hours are from ten to six."""
    Subscription.objects.update(quiet_from=time(22), quiet_until=time(6))
    clock.now = datetime(2026, 3, 2, 21, 30, tzinfo=UTC)
    return clock


def test_quiet_hours_end_in_one_digest(relay: FakeRelay, evening: Clock) -> None:
    evening.move(hours=1)
    for start in range(3):
        enqueue(1, start=start)
        evening.move(hours=1)
        assert delivery.send_due() == 0
    evening.now = datetime(2026, 3, 3, 5, 59, tzinfo=UTC)
    assert delivery.send_due() == 0
    evening.move(minutes=1)
    assert delivery.send_due() == 1
    assert relay.subjects == ["[SOC] [CERT] DIGEST: 3 notices, 3 warning (local)"]


def test_what_is_critical_goes_out_at_night_and_takes_nothing_along(
    relay: FakeRelay, evening: Clock
) -> None:
    evening.move(hours=1)
    enqueue(3)
    enqueue(1, Severity.CRITICAL)
    assert delivery.send_due() == 1
    assert relay.subjects == ["[SOC] [CERT] CRITICAL: Number <0> (local)"]
    assert states() == {"queued": 3, "sent": 1}


def test_an_outage_that_ends_at_night_does_not_wake_for_what_can_wait(
    outage: Outage, evening: Clock
) -> None:
    enqueue(3)
    enqueue(2, Severity.CRITICAL)
    delivery.send_due()
    evening.move(hours=2)
    outage.start()
    assert delivery.send_due() == 1
    assert outage.handler.subjects == ["[SOC] [CERT] DIGEST: 2 notices, 2 critical (local)"]
    evening.now = datetime(2026, 3, 3, 6, tzinfo=UTC)
    assert delivery.send_due() == 1, "they have not expired in their sleep"
    assert outage.handler.subjects[1] == "[SOC] [CERT] DIGEST: 3 notices, 3 warning (local)"


def test_what_is_over_by_morning_is_not_in_the_digest(relay: FakeRelay, evening: Clock) -> None:
    evening.move(hours=1)
    enqueue(5)
    for number in range(3):
        assert outbox.conclude(RESOLVED, f"c{number}", topic=f"alert:{number}") == 0
    evening.now = datetime(2026, 3, 3, 6, tzinfo=UTC)
    delivery.send_due()
    (message,) = relay.messages
    text = message.get_body(("plain",)).get_content()
    assert [f"Number <{number}>" in text for number in range(5)] == [
        False,
        False,
        False,
        True,
        True,
    ]


# --- What becomes of it -------------------------------------------------------------------------


def test_those_who_got_a_digest_hear_of_the_end(
    subscription: Subscription, relay: FakeRelay
) -> None:
    enqueue(11)
    delivery.send_due()
    assert outbox.conclude(RESOLVED, "close", topic="alert:3") == 1
    delivery.send_due()
    assert relay.subjects[1] == "[SOC] [CERT] RESOLVED: It (local)"


def test_a_digest_that_was_put_off_makes_room_for_what_is_still_true(
    subscription: Subscription, relay: FakeRelay, clock: Clock
) -> None:
    relay.recipient_reply = "451 Greylisted"
    enqueue(12)
    assert delivery.send_due() == 0
    assert states() == {"queued": 12}
    assert {(mail.attempts, mail.smtp_code) for mail in OutboundMail.objects.all()} == {(1, 451)}
    for number in range(5):
        assert outbox.conclude(RESOLVED, f"c{number}", topic=f"alert:{number}") == 0
    relay.recipient_reply = "250 OK"
    clock.move(minutes=10)
    assert delivery.send_due() == 1
    assert relay.subjects == ["[SOC] [CERT] DIGEST: 7 notices, 7 warning (local)"]
    assert OutboundMail.objects.get(kind="digest").attempts == 2


def test_what_a_relay_has_put_off_for_long_comes_as_one_digest(
    subscription: Subscription, relay: FakeRelay, clock: Clock
) -> None:
    """Their tries are spread over time, and would come as a trickle of old news."""
    relay.recipient_reply = "451 No space left"
    for start in range(0, 12, 3):
        enqueue(3, start=start)
        delivery.send_due()
        clock.move(minutes=10)
    relay.recipient_reply = "250 OK"
    for _ in range(10):
        delivery.send_due()
        clock.move(minutes=10)
    assert relay.subjects == ["[SOC] [CERT] DIGEST: 12 notices, 12 warning (local)"]


def test_a_few_that_were_put_off_come_as_themselves(
    subscription: Subscription, relay: FakeRelay, clock: Clock
) -> None:
    relay.recipient_reply = "451 Greylisted"
    enqueue(3)
    delivery.send_due()
    relay.recipient_reply = "250 OK"
    clock.move(minutes=10)
    assert delivery.send_due() == 3


def test_a_digest_that_one_recipient_has_is_finished_as_it_is(
    subscription: Subscription, relay: FakeRelay, clock: Clock
) -> None:
    relay.replies["b@health.internal"] = "451 Greylisted"
    enqueue(12)
    delivery.send_due()
    assert outbox.conclude(RESOLVED, "close", topic="alert:0") == 1
    relay.replies.clear()
    clock.move(minutes=10)
    delivery.send_due()
    digests = [mail for mail in relay.mails if b"DIGEST" in mail.content]
    assert [mail.rcpt_tos for mail in digests] == [["a@health.internal"], ["b@health.internal"]]
    assert digests[0].content == digests[1].content


def test_a_digest_that_is_refused_goes_to_the_fallback_recipients(
    subscription: Subscription, relay: FakeRelay
) -> None:
    Subscription.objects.update(fallback_recipients="deputy@health.internal")
    relay.replies |= dict.fromkeys(subscription.addresses, "550 Gone")
    enqueue(12)
    assert delivery.send_due() == 1
    assert relay.mails[0].rcpt_tos == ["deputy@health.internal"]
    assert outbox.conclude(RESOLVED, "close", topic="alert:0") == 1, "the deputy was told"


def test_a_relay_that_goes_down_with_a_digest_in_hand_leaves_the_notices_waiting(
    subscription: Subscription, outage: Outage, clock: Clock
) -> None:
    enqueue(12)
    assert delivery.send_due() == 0
    assert states() == {"queued": 12}
    assert {mail.attempts for mail in OutboundMail.objects.all()} == {0}
    outage.start()
    clock.move(minutes=1)
    assert delivery.send_due() == 1


# --- What it holds ------------------------------------------------------------------------------


def members(count: int, **values: object) -> list[OutboundMail]:
    return [
        OutboundMail(
            title=f"Number <{number}>", severity=Severity.WARNING, status="firing",
            link=f"https://x/{number}", created_at=datetime(2026, 3, 2, 12, tzinfo=UTC), **values,
        )
        for number in range(count)
    ]  # fmt: skip


def test_the_worst_come_first_and_then_the_oldest() -> None:
    first, second, third = members(3)
    first.created_at = timezone.now()
    third.severity = Severity.CRITICAL
    assert digest.in_order([first, second, third]) == [third, second, first]


def test_the_end_of_the_worst_is_no_bad_news() -> None:
    warning, ended = members(2)
    ended.severity, ended.concluded_at = Severity.CRITICAL, timezone.now()
    assert digest.in_order([ended, warning]) == [warning, ended]
    assert digest.severity_of([ended, warning]) == Severity.WARNING


def test_a_digest_shows_status_title_time_and_link() -> None:
    rendered = digest.render(Subscription(), members(2))
    for body in (rendered.text, rendered.html):
        assert "firing" in body.lower()
        assert "2026-03-02 12:00" in body
        assert "https://x/1" in body
    assert "Number <1>" in rendered.text
    assert "Number &lt;1&gt;" in rendered.html


def test_a_huge_digest_says_how_many_it_does_not_show() -> None:
    rendered = digest.render(Subscription(), members(1000))
    assert rendered.html.count("Number &lt;") == digest.MOST_ROWS
    for body in (rendered.text, rendered.html):
        assert f"{1000 - digest.MOST_ROWS} more are not shown here" in body


def test_the_largest_digest_stays_below_a_megabyte(
    subscription: Subscription, relay: FakeRelay
) -> None:
    Subscription.objects.update(csv=True)
    fire, link = "\U0001f525" * 250, "https://x/" + "'" * 450
    outbox.enqueue_all(
        {str(n): Notice(f"{n}{fire}", Severity.INFO, "s", {}, link) for n in range(150)}
    )
    assert delivery.send_due() == 1
    assert len(relay.mails[0].content) < 1_000_000


def test_the_table_has_all_notices(subscription: Subscription, relay: FakeRelay) -> None:
    Subscription.objects.update(csv=True)
    enqueue(12)
    outbox.enqueue(Notice('=cmd|"x"', Severity.INFO, "s", {}, application="events"), "formula")
    delivery.send_due()
    (part,) = relay.messages[0].iter_attachments()
    assert part.get_filename() == "notices.csv"
    rows = list(csv.reader(io.StringIO(part.get_content(), newline="")))
    assert rows[0] == ["status", "severity", "title", "since", "application", "link"]
    assert len(rows) == 14
    assert rows[-1][2] == '\'=cmd|"x"', "no spreadsheet computes it"
    assert rows[1][2] == "Number <0>"
    assert NOTICE.title not in str(rows)
