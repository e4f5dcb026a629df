"""Mail through a real Postfix: what it refuses, defers and delays, and what dies on the way.

A mail's claim lasts minutes and its next try may be half an hour away; the tests move such times
in the rows instead of waiting for them.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from typing import Any

import pytest
from relay import HOST, Relay

from harness import Stack, run, wait_for, wait_until_equal
from soc.notify import delivery

MANY = 1_000
DOMAIN = "health.internal"
FAST = "1000000"
"""Mails a minute: no limit."""

PRELUDE = r"""
from django.db import transaction
from django.utils import timezone
from soc.core.severity import Severity
from soc.notify import outbox, relay, tasks
from soc.notify.models import OutboundMail, Relay, Subscription
from soc.notify.templates import Notice

def notice(title):
    return Notice(title=title, severity=Severity.WARNING, summary="A test.", facts={})

def addresses(names):
    return "\n".join(f"{name}@health.internal" for name in names)

def mails(name):
    return OutboundMail.objects.filter(subscription__name=name)
"""


@dataclass(frozen=True)
class Letter:
    """Notices to a subscription of their own, whose recipient is named as it is if no other is."""

    name: str
    recipients: tuple[str, ...] = ()
    count: int = 1
    fallback: tuple[str, ...] = ()


class Subscribers:
    """Subscriptions of the tests' own, and what became of their mail.

    They want what no other test tells, lest the site's own alerts count among theirs.
    """

    def __init__(self, stack: Stack) -> None:
        self.stack = stack

    def answer(self, code: str) -> Any:
        return self.stack.data(PRELUDE + code)

    def work(self, code: str) -> None:
        """Run code where tasks may be published."""
        self.stack.python("worker-shared", PRELUDE + code)

    def tell(self, *letters: Letter) -> None:
        """Make a subscription for each, write its notices to it alone, and wake the worker."""
        self.work(f"""
for name, recipients, count, fallback in {[astuple(letter) for letter in letters]!r}:
    subscription = Subscription.objects.create(
        name=name, enabled=True, storm_limit=30_000, applications="logons",
        recipients=addresses(recipients or [name]), fallback_recipients=addresses(fallback))
    with transaction.atomic():
        for number in range(count):
            topic = f"{{name}}:{{number}}"
            outbox.enqueue(notice(f"{{name}} {{number}}"), topic, topic=topic, to=[subscription])
tasks.wake()
""")

    def remove(self) -> None:
        self.answer(f"""
own = Subscription.objects.filter(recipients__contains={DOMAIN!r}).exclude(name="operations")
OutboundMail.objects.filter(subscription__in=own).delete()
answer = own.delete()
""")

    def try_again(self, name: str) -> None:
        """Let the waiting mails' next try, and what the dead have claimed, be due now."""
        self.work(f"""
mails({name!r}).filter(next_try_at__isnull=False).update(next_try_at=timezone.now())
tasks.wake()
""")

    def mails(self, name: str) -> list[dict[str, Any]]:
        return self.answer(f"answer = list(mails({name!r}).order_by('created_at').values())")

    def mail(self, name: str) -> dict[str, Any]:
        return self.mails(name)[0]

    def relay(self) -> dict[str, Any]:
        """What the workers know of the relay."""
        return self.answer("answer = Relay.objects.values().first() or {}")

    def states(self, name: str) -> dict[str, int]:
        """How many mails stand in which state."""
        return Counter(
            self.answer(f"answer = list(mails({name!r}).values_list('state', flat=True))")
        )


@pytest.fixture(scope="module")
def relay(
    stack: Stack, images: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Relay]:
    """The stack's relay is a Postfix for this module's time."""
    # Of the tests of the stack, one looks for it where the stack's own mail goes.
    wait_for(
        "the first warning",
        lambda: any("catcher:2525" in mail["Subject"] for mail in stack.mail()),
        seconds=100,
    )
    before = stack.env_file.read_text()
    made = Relay(stack, tmp_path_factory.mktemp("relay"), images["python"])
    made.start()
    try:
        use(stack, SOC_SMTP_HOST=HOST, SOC_SMTP_PORT="587", SOC_MAIL_PER_MINUTE=FAST)
        yield made
    finally:
        stack.env_file.write_text(before)
        use(stack)
        run("docker", "rm", "--force", made.name)


def use(stack: Stack, workers: int = 1, **values: str) -> None:
    """Give the email worker other settings."""
    stack.set(**values)
    # Scaled down, Compose may keep another one than the first, by whose name tests call it.
    stack.compose("rm", "--stop", "--force", "worker-email")
    scale = f"--scale=worker-email={workers}"
    stack.compose("up", "--detach", "--no-deps", "--wait", scale, "worker-email")


@pytest.fixture(scope="module")
def subscribers(stack: Stack, relay: Relay) -> Iterator[Subscribers]:
    made = Subscribers(stack)
    yield made
    made.remove()


# --- what the relay answers ---


@pytest.fixture(scope="module")
def answered(subscribers: Subscribers) -> Subscribers:
    """Mails to recipients of every kind, each tried at least once."""
    subscribers.tell(
        Letter("slow"),
        Letter("partial", ("ann", "ben", "nobody", "dora", "eve")),
        Letter("greylisted", ("fred", "grey", "gina")),
        Letter("refused", ("nobody-1", "nobody-2"), fallback=("duty",)),
        Letter("nowhere", ("nobody-3",), fallback=("nobody-4",)),
        Letter("often", ("nobody-5",), count=25),
        Letter("full"),
        Letter("plain"),
    )
    for name in ("partial", "greylisted", "refused", "nowhere", "full", "plain"):
        wait_for(f"the mail {name}", lambda n=name: subscribers.mail(n)["smtp_code"], 90)
    return subscribers


def delivered(relay: Relay, mail: dict[str, Any]) -> Counter[str]:
    """For whom the relay has filed copies of a mail, and how often."""
    return Counter(
        copy.recipient.partition("@")[0]
        for copy in relay.copies()
        if copy.message_id == mail["message_id"]
    )


def test_a_refused_recipient_does_not_cost_the_others(relay: Relay, answered: Subscribers) -> None:
    mail = answered.mail("partial")
    wait_until_equal(
        "the copies",
        lambda: delivered(relay, mail),
        dict.fromkeys(["ann", "ben", "dora", "eve"], 1),
    )
    assert mail["state"] == "sent"
    assert "550 5.1.1 <nobody@health.internal>" in json.dumps(mail)


def test_a_deferred_recipient_is_tried_again_alone(relay: Relay, answered: Subscribers) -> None:
    """It gets the same mail as the others: the Message-ID and the To header are the same."""
    answered.try_again("greylisted")
    wait_until_equal("its state", lambda: answered.states("greylisted"), {"sent": 1})
    mail = answered.mail("greylisted")
    assert mail["attempts"] == 2
    wait_until_equal(
        "the copies", lambda: delivered(relay, mail), {"fred": 1, "gina": 1, "grey": 1}
    )
    assert {copy.to for copy in relay.copies() if copy.message_id == mail["message_id"]} == {
        f"fred@{DOMAIN}, grey@{DOMAIN}, gina@{DOMAIN}"
    }


def test_a_mail_that_all_recipients_refuse_goes_to_the_fallback(
    relay: Relay, answered: Subscribers
) -> None:
    wait_until_equal("the states", lambda: answered.states("refused"), {"failed": 1, "sent": 1})
    refused, fallback = answered.mails("refused")
    assert fallback["fallback_of_id"] == refused["id"]
    wait_until_equal("the copy", lambda: delivered(relay, fallback), {"duty": 1})


def test_a_fallback_that_is_refused_too_has_failed(answered: Subscribers) -> None:
    wait_until_equal("the states", lambda: answered.states("nowhere"), {"failed": 2})
    assert {mail["smtp_code"] for mail in answered.mails("nowhere")} == {550}


def test_a_mail_that_is_deferred_to_its_end_expires(answered: Subscribers) -> None:
    mail = answered.mail("full")
    assert (mail["state"], mail["smtp_code"]) == ("queued", 452)
    answered.answer("answer = mails('full').update(expires_at=timezone.now())")
    answered.try_again("full")
    wait_until_equal("its state", lambda: answered.states("full"), {"expired": 1})
    assert "452 4.2.2 <full@health.internal>" in json.dumps(answered.mail("full"))


def test_a_recipient_that_takes_too_long_keeps_nobody_waiting(
    relay: Relay, answered: Subscribers
) -> None:
    """The relay's answer to one recipient comes after more than the worker waits."""
    wait_for("its first try", lambda: answered.mail("slow")["last_error"])
    assert delivered(relay, answered.mail("plain")) == {"plain": 1}
    assert answered.states("slow").keys() <= {"queued", "sending"}
    answered.work('outbox.withdraw(["slow:0"])')
    wait_until_equal("its state", lambda: answered.states("slow"), {"withdrawn": 1})


def test_a_relay_that_hangs_up_after_many_refusals_is_called_again(answered: Subscribers) -> None:
    """Postfix takes 20 errors of one connection that delivers nothing."""
    wait_until_equal("their states", lambda: answered.states("often"), {"failed": 25})


# --- a relay that must not be trusted ---


@pytest.mark.parametrize(
    ("wrong", "right", "error"),
    [
        (
            {"smtpd_tls_chain_files": "/identity/strange.pem"},
            {"smtpd_tls_chain_files": "/identity/own.pem"},
            "CERTIFICATE_VERIFY_FAILED",
        ),
        (
            {"smtpd_tls_security_level": "none"},
            {"smtpd_tls_security_level": "may"},
            "STARTTLS extension not supported",
        ),
    ],
    ids=["certificate", "plain-text"],
)
def test_a_relay_that_cannot_be_trusted_gets_nothing(
    relay: Relay,
    subscribers: Subscribers,
    wrong: dict[str, str],
    right: dict[str, str],
    error: str,
) -> None:
    name = f"trust-{next(iter(wrong.values())).rpartition('/')[2]}"
    relay.restart(**wrong)
    subscribers.tell(Letter(name))
    wait_for("the refusal", lambda: error in subscribers.relay().get("last_error", ""))
    assert not relay.has_filed(subscribers.mail(name)["message_id"])
    relay.restart(**right)
    subscribers.work("relay.probe_soon()\ntasks.wake()")
    wait_until_equal("its state", lambda: subscribers.states(name), {"sent": 1})


# --- an outage ---


def test_after_an_outage_one_digest_tells_what_is_still_true(
    relay: Relay, subscribers: Subscribers
) -> None:
    names = ("outage-1", "outage-2")
    with relay.killed():
        subscribers.tell(*(Letter(name, count=20) for name in names))
        wait_for("the relay to be missed", lambda: subscribers.relay().get("down_since"))
        subscribers.work(f"""
for topic in [f"{{name}}:{{number}}" for name in {names!r} for number in range(15)]:
    outbox.conclude(notice("over"), topic + ":over", topic=topic)
""")
    for name in names:
        expected = {"withdrawn": 15, "digested": 5, "sent": 1}
        wait_until_equal(name, lambda n=name: subscribers.states(n), expected)
        (digest,) = [mail for mail in subscribers.mails(name) if mail["state"] == "sent"]
        wait_until_equal(
            "the copies",
            lambda n=name: relay.message_ids(f"{n}@{DOMAIN}"),
            {digest["message_id"]: 1},
        )
        told = re.findall(rf"{name} (\d+)", digest["text"])
        assert sorted(map(int, told)) == list(range(15, 20))


# --- deaths in the middle of it ---


def kill_the_worker(stack: Stack, subscribers: Subscribers, name: str) -> None:
    """Kill every process of the email worker's container and start it again."""
    run("docker", "kill", "--signal=KILL", stack.container("worker-email"))
    # Nobody is alive who could still mark what is claimed.
    subscribers.try_again(name)
    run("docker", "start", stack.container("worker-email"))


def restart_the_broker(stack: Stack, *_: object) -> None:
    stack.compose("restart", "rabbitmq")


def restart_the_database(stack: Stack, *_: object) -> None:
    stack.compose("restart", "mariadb")
    wait_for("the database", lambda: stack.health("mariadb") == "healthy")


def test_a_mail_whose_sender_dies_before_it_hears_the_reply_comes_twice_as_itself(
    stack: Stack, relay: Relay, subscribers: Subscribers
) -> None:
    """The relay thinks for some seconds before it replies to the end of DATA."""
    subscribers.tell(Letter("pensive"))
    wait_for("the end of DATA", lambda: relay.thinks_about(f"pensive@{DOMAIN}"))
    kill_the_worker(stack, subscribers, "pensive")
    wait_until_equal("its state", lambda: subscribers.states("pensive"), {"sent": 1}, 90)
    twice = {subscribers.mail("pensive")["message_id"]: 2}
    wait_until_equal("the copies", lambda: relay.message_ids(f"pensive@{DOMAIN}"), twice)


def test_a_mail_whose_relay_dies_before_it_replies_comes_once(
    relay: Relay, subscribers: Subscribers
) -> None:
    recipient = f"pensive-2@{DOMAIN}"
    subscribers.tell(Letter("thoughtful", ("pensive-2",)))
    wait_for("the end of DATA", lambda: relay.thinks_about(recipient))
    with relay.killed():
        wait_for("the loss", lambda: subscribers.mail("thoughtful")["last_error"])
    subscribers.try_again("thoughtful")
    wait_until_equal("its state", lambda: subscribers.states("thoughtful"), {"sent": 1}, 90)
    once = {subscribers.mail("thoughtful")["message_id"]: 1}
    wait_until_equal("the copy", lambda: relay.message_ids(recipient), once)


@pytest.mark.drill
@pytest.mark.parametrize(
    ("fault", "doubled"),
    [(kill_the_worker, 1), (restart_the_broker, 0), (restart_the_database, 1)],
)
def test_no_mail_is_lost_and_only_the_one_in_hand_may_come_twice(
    stack: Stack,
    relay: Relay,
    subscribers: Subscribers,
    capsys: pytest.CaptureFixture[str],
    fault: Any,
    doubled: int,
) -> None:
    """The fault comes between mails mostly; the one in hand is sent, but not marked so."""
    name = fault.__name__
    before = relay.count()
    subscribers.tell(Letter(name, count=MANY))
    wait_for("the middle", lambda: relay.count() - before >= MANY // 3)
    reached = relay.count() - before
    fault(stack, subscribers, name)
    wait_until_equal("the end", lambda: subscribers.states(name), {"sent": MANY}, 180)
    wait_for("the last copy", lambda: relay.count() - before >= MANY)
    copies = relay.message_ids(f"{name}@{DOMAIN}")
    twice = sum(number > 1 for number in copies.values())
    with capsys.disabled():
        print(f"\n{name} after {reached} mails: {MANY - len(copies)} lost, {twice} twice")
    assert set(copies) == {mail["message_id"] for mail in subscribers.mails(name)}
    assert copies.total() - len(copies) <= doubled


# --- the pace ---

PACE = 240
BURST = PACE // 6
"""Ten seconds' worth may go at once."""


IN_HAND = 3 * delivery.BATCH
"""Mails that three workers may have claimed within the pace and not sent yet."""


def test_three_workers_keep_to_one_pace(
    stack: Stack, relay: Relay, subscribers: Subscribers
) -> None:
    name = "pace"
    use(stack, workers=3, SOC_MAIL_PER_MINUTE=str(PACE))
    try:
        subscribers.tell(Letter(name, count=2 * BURST))
        wait_until_equal("the end", lambda: subscribers.states(name), {"sent": 2 * BURST})
    finally:
        use(stack, SOC_MAIL_PER_MINUTE=FAST)
    copies = [copy for copy in relay.copies() if copy.recipient == f"{name}@{DOMAIN}"]
    for first, early in enumerate(copies):
        for last, late in enumerate(copies[first:], start=1):
            # The relay's clock shows whole seconds.
            seconds = (late.at - early.at).total_seconds() + 1
            assert last <= BURST + IN_HAND + seconds * PACE / 60
    assert len({copy.client for copy in copies}) == 3
