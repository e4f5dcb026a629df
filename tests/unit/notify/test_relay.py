"""The relay as a fact about the site: outages, probes, and the pace for all workers."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from mailing import NOTICE, Clock, FakeRelay, Outage, relay_row, states
from soc.core.severity import Severity
from soc.notify import delivery, health, outbox, relay, smtp, tasks
from soc.notify.models import OutboundMail, Relay, Subscription
from soc.notify.pace import Pace
from soc.notify.templates import Notice

pytestmark = pytest.mark.django_db

RESOLVED = Notice("It", Severity.OK, "It is over.", {}, status="resolved")


def attempts_to_connect(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count from now on."""
    attempts: list[int] = []
    connect = smtp.connect
    monkeypatch.setattr(smtp, "connect", lambda end: (attempts.append(1), connect(end))[1])
    return attempts


def test_a_relay_that_is_down_is_a_fact_about_the_site(
    subscription: Subscription, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = attempts_to_connect(monkeypatch)
    for number in range(2 * delivery.BATCH):
        outbox.enqueue(NOTICE, f"occasion {number}")
    for _ in range(3):
        assert delivery.send_due() == 0
    assert len(attempts) == 1, "asked once for all mails"
    mails = OutboundMail.objects.all()
    assert {(mail.state, mail.attempts, mail.alone) for mail in mails} == {("queued", 0, False)}
    state = health.relay_state()
    assert state.down_since
    assert "Connection refused" in state.error
    assert state.next_probe_at
    assert state.next_probe_at > state.down_since


def test_the_mail_that_met_the_outage_says_why_it_waits(
    subscription: Subscription, outage: Outage
) -> None:
    outbox.enqueue(NOTICE, "occasion")
    delivery.send_due()
    assert "Connection refused" in OutboundMail.objects.get().last_error


def test_nothing_wakes_a_worker_while_the_relay_is_down(
    subscription: Subscription, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[int] = []
    monkeypatch.setattr(tasks.send_due_mail, "apply_async", lambda **_: woken.append(1))
    for number in range(2 * delivery.BATCH):
        outbox.enqueue(NOTICE, f"occasion {number}")
    tasks.send_due_mail()
    tasks.send_due_mail()
    assert len(woken) == 1, "the first did not know"


def test_probes_come_at_growing_intervals_with_jitter() -> None:
    for failures in range(1, 15):
        waits = [relay.wait(failures) for _ in range(100)]
        assert min(waits) >= timedelta(seconds=10)
        assert max(waits) <= min(timedelta(seconds=10) * 2**failures, timedelta(minutes=5))
        assert len(set(waits)) > 50


def test_an_outage_is_probed_until_it_ends(
    subscription: Subscription, outage: Outage, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = attempts_to_connect(monkeypatch)
    outbox.enqueue(NOTICE, "occasion")
    for _ in range(120):
        delivery.send_due()
        clock.move(seconds=30)
    assert 60 / 5 - 1 <= len(attempts) <= 40
    assert relay_row().failures == len(attempts)
    outage.start()
    clock.move(minutes=5)
    assert delivery.send_due() == 1
    row = relay_row()
    assert (row.down_since, row.next_probe_at, row.failures) == (None, None, 0)
    assert row.up_since == clock.now
    assert health.relay_state() == health.RelayState()


def test_only_one_worker_probes(subscription: Subscription, outage: Outage, clock: Clock) -> None:
    relay.mark_down(OSError("gone"), clock.now)
    assert not delivery._claim().probe, "not before its time"
    clock.move(minutes=1)
    assert delivery._claim().probe
    assert not delivery._claim().probe
    clock.move(minutes=3)
    assert delivery._claim().probe, "the first may have died"


def test_a_person_can_have_it_probed_at_once(clock: Clock) -> None:
    relay.mark_down(OSError("gone"), clock.now)
    relay.probe_soon()
    assert delivery._claim().probe


def test_an_attempt_from_before_the_recovery_does_not_end_it(clock: Clock) -> None:
    began = clock.now
    relay.mark_down(OSError("gone"), began)
    clock.move(seconds=10)
    relay.mark_up()
    clock.move(seconds=1)
    relay.mark_down(OSError("a slow worker found out late"), began)
    assert relay_row().down_since is None
    relay.mark_down(OSError("gone again"), clock.now)
    assert relay_row().down_since == clock.now


def test_an_hour_without_a_relay_ends_in_one_digest_of_what_is_still_true(
    outage: Outage, clock: Clock
) -> None:
    """500 notices, 450 of them over before the relay is back."""
    for name in ("day", "night"):
        Subscription.objects.create(name=name, recipients=f"{name}@health.internal")
    outbox.enqueue(NOTICE, "the first", topic="alert:first")
    assert delivery.send_due() == 0
    for tens in range(0, 500, 10):
        numbers = range(tens, tens + 10)
        notices = {f"open:{n}": Notice(f"Number {n}", Severity.CRITICAL, "s", {}) for n in numbers}
        outbox.enqueue_all(notices, topics={f"open:{n}": f"alert:{n}" for n in numbers})
        clock.move(seconds=72)
        delivery.send_due()
    outbox.conclude(RESOLVED, "close:first", topic="alert:first")
    for number in range(450):
        assert outbox.conclude(RESOLVED, f"close:{number}", topic=f"alert:{number}") == 0
    assert relay_row().down_since == clock.now - timedelta(hours=1)

    outage.start()
    clock.move(minutes=5)
    assert delivery.send_due() == 2
    clock.move(hours=12)
    assert delivery.send_due() == 0
    assert len(outage.handler.mails) == 2
    assert {message["To"] for message in outage.handler.messages} == {
        "day@health.internal", "night@health.internal"
    }  # fmt: skip
    for message in outage.handler.messages:
        assert message["Subject"] == "DIGEST: 50 notices, 50 critical (local)"
        for part in ("plain", "html"):
            body = message.get_body((part,)).get_content()
            assert set(re.findall(r"Number (\d+)", body)) == {str(n) for n in range(450, 500)}
    assert states() == {"withdrawn": 902, "digested": 100, "sent": 2}


def test_a_single_notice_that_waited_for_the_relay_is_just_itself(
    subscription: Subscription, outage: Outage, clock: Clock
) -> None:
    outbox.enqueue(NOTICE, "occasion")
    delivery.send_due()
    outage.start()
    clock.move(minutes=5)
    assert delivery.send_due() == 1
    assert outage.handler.subjects == ["[SOC] [CERT] WARNING: A title (local)"]


def test_an_outage_longer_than_a_mails_life_leaves_a_trace(
    subscription: Subscription, outage: Outage, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(8):
        outbox.enqueue(NOTICE, f"occasion {number}")
    delivery.send_due()
    clock.move(hours=4, seconds=1)
    delivery.send_due()
    assert states() == {"expired": 8}
    assert all("Connection refused" in mail.last_error for mail in OutboundMail.objects.all())
    assert "8 mails were not sent in their time" in caplog.text
    assert health.counts(clock.now, clock.now - timedelta(days=1)) == health.MailCounts(0, 0, 0, 8)


def test_the_counts_tell_what_waits_from_what_is_held(
    subscription: Subscription, clock: Clock
) -> None:
    outbox.enqueue(NOTICE, "now")
    Subscription.objects.update(digest_minutes=5)
    outbox.enqueue(NOTICE, "later")
    assert health.counts(clock.now, clock.now) == health.MailCounts(1, 1, 0, 0)


def test_a_relay_that_accepts_and_says_nothing_is_down(
    subscription: Subscription, outage: Outage, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtp, "TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.SMTP_PORT = silent.getsockname()[1]
        outbox.enqueue(NOTICE, "occasion")
        assert delivery.send_due() == 0
    assert "timed out" in health.relay_state().error


def test_a_relay_without_starttls_gets_no_mail_when_the_site_asks_for_it(
    subscription: Subscription, relay: FakeRelay, settings: Any
) -> None:
    settings.SMTP_SECURITY = "starttls"
    outbox.enqueue(NOTICE, "occasion")
    assert delivery.send_due() == 0
    assert "STARTTLS" in health.relay_state().error
    assert relay.mails == []


def test_a_login_that_the_relay_does_not_take_is_the_sites_trouble(
    subscription: Subscription, relay: FakeRelay, settings: Any
) -> None:
    """The relay of this test takes no login at all."""
    settings.SMTP_USER = "soc"
    (settings.IDENTITY / "smtp_password").write_text("guess")
    outbox.enqueue(NOTICE, "occasion")
    try:
        delivery.send_due()
        assert "AUTH" in health.relay_state().error
    finally:
        (settings.IDENTITY / "smtp_password").unlink()
    Relay.objects.update(next_probe_at=None)
    delivery.send_due()
    assert "smtp_password" in health.relay_state().error
    assert states() == {"queued": 1}


# --- Pace ---------------------------------------------------------------------------------------


def test_the_bucket_fills_with_time_and_not_beyond_its_size() -> None:
    pace = Pace(120)
    assert pace.size == 20
    assert pace.filled(0, 5) == 10
    assert pace.filled(15, 60) == 20
    assert pace.filled(3, -60) == 3, "a clock that was put back"
    assert pace.wait(0.5) == 0.25
    assert Pace(1).size == 1
    assert Pace(1).wait(0) == 60


def test_the_pace_holds_for_the_whole_site(
    subscription: Subscription,
    relay: FakeRelay,
    settings: Any,
    clock: Clock,
    no_pauses: Callable[[], float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings.MAIL_PER_MINUTE = 60
    monkeypatch.setattr("soc.notify.delivery.time.monotonic", lambda: clock.now.timestamp())
    Subscription.objects.update(storm_limit=1000)
    for number in range(100):
        outbox.enqueue(NOTICE, f"occasion {number}")
    first = delivery.send_due()
    assert first in (39, 40), "ten at once, and one a second for 30 s"
    assert 29 <= no_pauses() <= 31
    second = delivery.send_due()
    assert second in (29, 30, 31), "another worker finds what the first has left"
    clock.move(minutes=1)
    assert delivery.send_due() == 100 - first - second


def test_a_slow_pace_does_not_wake_workers_in_a_circle(
    subscription: Subscription,
    relay: FakeRelay,
    settings: Any,
    clock: Clock,
    no_pauses: Callable[[], float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings.MAIL_PER_MINUTE = 1
    monkeypatch.setattr("soc.notify.delivery.time.monotonic", lambda: clock.now.timestamp())
    Subscription.objects.update(storm_limit=1000)
    for number in range(10):
        outbox.enqueue(NOTICE, f"occasion {number}")
    sent = [delivery.send_due() for _ in range(4)]
    assert sum(sent) <= 3
    assert no_pauses() >= 100, "a run without a token waits out its time"
