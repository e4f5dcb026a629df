"""Channels that post: what becomes of a message, whatever its destination does."""

from __future__ import annotations

import email.utils
import json
import re
import ssl
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import urllib3

import pki
from mailing import NOTICE, Clock, FakeRelay, Outage, make_due, states
from receiver import Receiver, serve
from soc.core.severity import Severity
from soc.notify import channels, delivery, outbox
from soc.notify.channels import destination, http, webhook
from soc.notify.models import Destination, OutboundMail, Subscription
from soc.notify.templates import Notice

pytestmark = pytest.mark.django_db

POSTING = [kind.name for kind in channels.KINDS if kind.name != channels.EMAIL]
SECRET = "one-secret"
PATHS = {"alertmanager": "/api/v2/alerts"}


@pytest.fixture
def authority(settings: Any, tmp_path: Path) -> pki.Issued:
    """The site's own authority, and its sealing keys, as a worker has them."""
    authority = pki.issue("site", ca=True)
    kept = tmp_path / "identity"
    kept.mkdir()
    (kept / "ca.pem").write_bytes(authority.cert_pem)
    (kept / "sealing_keys").write_bytes((settings.IDENTITY / "sealing_keys").read_bytes())
    settings.IDENTITY = kept
    return authority


@pytest.fixture
def certified(authority: pki.Issued, tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    leaf = pki.issue("localhost", authority, san=["localhost"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*pki.write_server_files(tmp_path, leaf))
    return tmp_path, context


@pytest.fixture
def receiver(certified: tuple[Path, ssl.SSLContext], settings: Any) -> Iterator[Receiver]:
    with serve(certified[1]) as receiver:
        settings.WEBHOOK_HOSTS = [f"localhost:{receiver.port}"]
        settings.WEBHOOK_NETWORKS = ["127.0.0.0/8", "::1/128"]
        yield receiver


def subscribe(channel: str, receiver: Receiver, **values: Any) -> Subscription:
    made = Subscription(
        name=values.pop("name", channel),
        channel=channel,
        url=f"https://localhost:{receiver.port}{PATHS.get(channel, '/topic')}",
        secret=SECRET,
        **values,
    )
    made.full_clean()
    made.save()
    return made


# --- The matrix ---------------------------------------------------------------------------------


def succeed(receiver: Receiver, settings: Any, mp: pytest.MonkeyPatch, leaf: Path) -> None:
    """Let it take everything."""


def limit(receiver: Receiver, settings: Any, mp: pytest.MonkeyPatch, leaf: Path) -> None:
    receiver.status, receiver.headers = 429, {"Retry-After": "1200"}


def fail(receiver: Receiver, settings: Any, mp: pytest.MonkeyPatch, leaf: Path) -> None:
    receiver.status = 500


def stall(receiver: Receiver, settings: Any, mp: pytest.MonkeyPatch, leaf: Path) -> None:
    receiver.stalls = True
    mp.setattr(http, "TIMEOUT", urllib3.Timeout(connect=5.0, read=0.2))


def distrust(receiver: Receiver, settings: Any, mp: pytest.MonkeyPatch, leaf: Path) -> None:
    (settings.IDENTITY / "ca.pem").write_bytes(pki.issue("other", ca=True).cert_pem)


def redirect(receiver: Receiver, settings: Any, mp: pytest.MonkeyPatch, leaf: Path) -> None:
    receiver.status = 307
    receiver.headers = {"Location": f"https://localhost:{receiver.port}/elsewhere"}


def unlist(receiver: Receiver, settings: Any, mp: pytest.MonkeyPatch, leaf: Path) -> None:
    settings.WEBHOOK_HOSTS = ["hooks.slack.com"]


def rotate(receiver: Receiver, settings: Any, mp: pytest.MonkeyPatch, leaf: Path) -> None:
    receiver.status = 403


CASES: dict[str, tuple[Callable[..., None], str, int]] = {
    "success": (succeed, "sent", 1),
    "429, Retry-After": (limit, "held", 1),
    "500": (fail, "held", 1),
    "timeout": (stall, "held", 1),
    "bad certificate": (distrust, "held", 0),
    "redirect": (redirect, "refused", 1),
    "refused host": (unlist, "refused", 0),
    "secret rotated": (rotate, "refused", 1),
}
"""What the other side does, what becomes of the message, and how many requests it hears."""


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("channel", POSTING)
def test_nothing_is_lost_whatever_the_destination_does(
    channel: str,
    case: str,
    receiver: Receiver,
    relay: FakeRelay,
    clock: Clock,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    subscribe(channel, receiver, fallback_recipients="boss@health.internal")
    arrange, outcome, requests = CASES[case]
    kept = settings.WEBHOOK_HOSTS, (settings.IDENTITY / "ca.pem").read_bytes(), http.TIMEOUT
    arrange(receiver, settings, monkeypatch, tmp_path)
    outbox.enqueue(NOTICE, "occasion")
    delivery.send_due()
    first = OutboundMail.objects.get(channel=channel)
    assert len(receiver.heard) == requests
    became = {
        ("sent", False): "sent",
        ("queued", True): "held",
        ("failed", False): "refused",
    }[first.state, Destination.objects.filter(down_since__isnull=False).exists()]
    assert became == outcome, first.last_error
    # Nobody asks again before it is time.
    delivery.send_due()
    assert len(receiver.heard) == requests
    settings.WEBHOOK_HOSTS = kept[0]
    (settings.IDENTITY / "ca.pem").write_bytes(kept[1])
    monkeypatch.setattr(http, "TIMEOUT", kept[2])
    receiver.status, receiver.headers, receiver.stalls = 200, {}, False
    clock.move(minutes=30)
    make_due()
    delivery.send_due()
    by_mail = len(relay.mails)
    print(f"| {channel} | {case} | {outcome} | posted {len(receiver.taken)} | mailed {by_mail} |")
    assert (len(receiver.taken), by_mail) == ((0, 1) if outcome == "refused" else (1, 0))
    assert not OutboundMail.objects.filter(next_try_at__isnull=False).exists(), states()


# --- Promises -----------------------------------------------------------------------------------


def test_a_destination_says_when_to_come_back(receiver: Receiver, clock: Clock) -> None:
    subscribe("webhook", receiver)
    later = clock.now + timedelta(minutes=20)
    receiver.status = 503
    receiver.headers = {"Retry-After": email.utils.format_datetime(later, usegmt=False)}
    outbox.enqueue(NOTICE, "occasion")
    before = Destination.objects.count()
    delivery.send_due()
    assert (before, len(receiver.heard)) == (0, 1)
    held = Destination.objects.get().next_try_at
    assert held
    assert abs(held - later) < timedelta(minutes=1)
    clock.move(minutes=18)
    delivery.send_due()
    assert len(receiver.heard) == 1
    receiver.status = 200
    clock.move(minutes=3)
    assert delivery.send_due() == 1
    assert Destination.objects.get().down_since is None


def test_an_outage_holds_one_destination_and_neither_mail_nor_others(
    receiver: Receiver, relay: FakeRelay, clock: Clock, subscription: Subscription
) -> None:
    subscribe("webhook", receiver)
    bad = subscribe("slack", receiver)
    Subscription.objects.filter(pk=bad.pk).update(url=f"https://localhost:{receiver.port}/bad")
    receiver.judge = None
    Destination.objects.create(
        subscription=bad, down_since=clock.now, next_try_at=clock.now + timedelta(hours=1)
    )
    for number in range(4):
        outbox.enqueue(NOTICE, f"occasion {number}")
    delivery.send_due()
    assert len(relay.mails) == 4
    assert [path for path, _, _ in receiver.taken] == ["/topic"] * 4
    assert states() == {"sent": 8, "queued": 4}


def test_an_outage_of_the_relay_holds_no_webhook(
    receiver: Receiver, outage: Outage, subscription: Subscription, clock: Clock
) -> None:
    subscribe("webhook", receiver)
    for number in range(3):
        outbox.enqueue(NOTICE, f"occasion {number}")
    assert delivery.send_due() == 3
    outbox.enqueue(NOTICE, "another")
    assert delivery.send_due() == 1
    assert len(receiver.taken) == 4
    outage.start()
    clock.move(minutes=6)
    assert delivery.send_due() == 1, "one digest for the mail's subscription"


def test_one_message_tries_a_destination_that_is_down(receiver: Receiver, clock: Clock) -> None:
    subscribe("pagerduty", receiver)
    receiver.status = 503
    for number in range(8):
        outbox.enqueue(NOTICE, f"occasion {number}")
    for _ in range(60):
        delivery.send_due()
        clock.move(minutes=1)
    assert 10 <= len(receiver.heard) <= 40, "further and further apart"
    assert {mail.attempts for mail in OutboundMail.objects.all()} == {0}, "nothing was taken"
    receiver.status = 202
    clock.move(minutes=6)
    delivery.send_due()
    keys = [json.loads(body)["dedup_key"] for _, _, body in receiver.taken]
    assert len(keys) == len(set(keys)) == 8, "no digest: each opens its own incident"


def test_what_expires_says_what_its_own_destination_said(
    receiver: Receiver, relay: FakeRelay, clock: Clock, subscription: Subscription
) -> None:
    subscribe("webhook", receiver)
    receiver.status = 503
    for number in range(3):
        outbox.enqueue(NOTICE, f"occasion {number}")
    delivery.send_due()
    clock.move(hours=4, minutes=1)
    delivery.send_due()
    assert states() == {"sent": 3, "expired": 3}
    expired = OutboundMail.objects.filter(state="expired")
    assert {mail.last_error for mail in expired} == {"It answered 503 words"}


def test_a_worker_without_the_sealing_keys_holds_and_says_so(
    receiver: Receiver, relay: FakeRelay, settings: Any, clock: Clock, subscription: Subscription
) -> None:
    subscribe("webhook", receiver)
    keys = settings.IDENTITY / "sealing_keys"
    kept = keys.read_bytes()
    keys.unlink()
    outbox.enqueue(NOTICE, "occasion")
    assert delivery.send_due() == 1, "the mail"
    assert "This service has no sealing keys" in Destination.objects.get().last_error
    keys.write_bytes(kept)
    clock.move(minutes=1)
    assert delivery.send_due() == 1


def test_a_message_that_may_have_been_taken_comes_again_under_its_id(
    receiver: Receiver, clock: Clock
) -> None:
    subscribe("webhook", receiver)
    receiver.status = 500
    outbox.enqueue(NOTICE, "occasion")
    delivery.send_due()
    receiver.status = 200
    clock.move(minutes=40)
    assert delivery.send_due() == 1
    ids = [headers["X-SOC-Id"] for _, headers, _ in receiver.heard]
    assert len(ids) == 2
    assert len(set(ids)) == 1


def test_a_webhook_is_signed_with_the_secret_of_now(receiver: Receiver, clock: Clock) -> None:
    made = subscribe("webhook", receiver)
    for secret in (SECRET, "another"):
        made.secret = secret
        made.save()
        outbox.enqueue(NOTICE, secret)
        assert delivery.send_due() == 1
        _, headers, body = receiver.taken[-1]
        signed = webhook.signature(secret, headers["X-SOC-Timestamp"], body)
        assert headers["X-SOC-Signature"] == f"sha256={signed}"
        assert headers["X-SOC-Timestamp"] == str(int(clock.now.timestamp()))


def test_pagerduty_opens_and_resolves_one_incident(receiver: Receiver) -> None:
    subscribe("pagerduty", receiver)
    outbox.enqueue(NOTICE, "opened", topic="alert:1")
    delivery.send_due()
    over = Notice("A title", Severity.INFO, "It is over.", {}, "", status="resolved")
    outbox.conclude(over, "resolved", topic="alert:1")
    delivery.send_due()
    events = [json.loads(body) for _, _, body in receiver.taken]
    assert [event["event_action"] for event in events] == ["trigger", "resolve"]
    assert len({event["dedup_key"] for event in events}) == 1
    assert {event["routing_key"] for event in events} == {SECRET}


def test_payloads_follow_the_published_forms(receiver: Receiver) -> None:
    for channel in ("slack", "teams", "ntfy"):
        subscribe(channel, receiver)
    notice = Notice("<!channel> & co", Severity.CRITICAL, "S" * 20_000, {}, "https://localhost/x")
    outbox.enqueue(notice, "occasion")
    delivery.send_due()
    bodies = [(path, headers, json.loads(body)) for path, headers, body in receiver.taken]
    (slack,) = [body for _, _, body in bodies if "text" in body]
    assert "&lt;!channel&gt; &amp; co" in slack["text"]
    (teams,) = [body for _, _, body in bodies if "attachments" in body]
    assert teams["attachments"][0]["content"]["type"] == "AdaptiveCard"
    assert len(json.dumps(teams)) < 28 * 1024
    ((path, headers, ntfy),) = [found for found in bodies if "topic" in found[2]]
    assert (path, ntfy["topic"], ntfy["priority"]) == ("/", "topic", 5)
    assert headers["Authorization"] == f"Bearer {SECRET}"
    assert len(ntfy["message"].encode()) < 4_096


def taken_by_ntfy(_: dict[str, str], body: bytes) -> bool:
    """Judge a message as the server does (ntfy v2: transformBodyJSON, publishMessage, actions.go).

    Beyond MessageSizeLimit it makes an attachment of the text; beyond twice that it refuses.
    """
    fields = {
        *("topic", "title", "message", "priority", "tags", "click", "icon", "actions", "attach"),
        *("markdown", "filename", "email", "call", "cache", "firebase", "delay"),
    }
    found = json.loads(body)
    return (
        len(body) <= 2 * 4_096
        and set(found) <= fields
        and re.fullmatch(r"[-_A-Za-z0-9]{1,64}", found["topic"]) is not None
        and found["topic"] not in ("docs", "static", "file", "app", "account", "settings", "v1")
        and 0 < len(found["message"].encode()) <= 4_096
        and found.get("priority") in range(6)
        and len(found.get("actions", [])) <= 3
        and all(
            action["action"] in ("view", "broadcast", "http") and action["label"] and action["url"]
            for action in found.get("actions", [])
        )
    )


@pytest.mark.parametrize("letter", ["a", "\N{SNOWMAN}", "\N{FIRE}", '"', "\n", "\\"])
def test_ntfy_takes_the_longest_of_messages_as_text(receiver: Receiver, letter: str) -> None:
    receiver.judge = taken_by_ntfy
    subscribe("ntfy", receiver)
    link = f"https://localhost/{'x' * 480}"
    notice = Notice(
        letter * 255, Severity.CRITICAL, letter * 20_000, {}, link, acknowledgeable=True
    )
    outbox.enqueue(notice, "occasion", topic="alert:1")
    assert delivery.send_due() == 1
    assert "actions" in json.loads(receiver.taken[0][2])


# --- Destinations -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "169.254.169.254", "10.1.2.3", "172.18.0.4", "100.64.0.1", "0.0.0.0"),
        *("::1", "fe80::1", "fd00::1", "::ffff:127.0.0.1", "64:ff9b::a01:203"),
        *("2002:a01:203::1", "224.0.0.1", "ff0e::1"),
    ],
)
def test_no_connection_goes_to_an_address_that_is_not_public(address: str, settings: Any) -> None:
    settings.WEBHOOK_NETWORKS = []
    with pytest.raises(destination.NotAllowed, match="SOC_WEBHOOK_NETWORKS"):
        destination.addresses(address, 443)


def test_a_listed_host_at_loopback_hears_nothing(
    receiver: Receiver, settings: Any, relay: FakeRelay
) -> None:
    subscribe("webhook", receiver, fallback_recipients="boss@health.internal")
    settings.WEBHOOK_NETWORKS = []
    outbox.enqueue(NOTICE, "occasion")
    delivery.send_due()
    assert receiver.heard == []
    assert "SOC_WEBHOOK_NETWORKS" in OutboundMail.objects.get(channel="webhook").last_error
    assert len(relay.mails) == 1


@pytest.mark.parametrize(
    ("entry", "url", "allowed"),
    [
        ("a.example", "https://a.example/x", True),
        ("a.example", "https://A.EXAMPLE/x", True),
        ("a.example", "http://a.example/x", False),
        ("a.example", "https://a.example:8443/x", False),
        ("a.example:8443", "https://a.example:8443/x", True),
        ("a.example", "https://b.a.example/x", False),
        (".a.example", "https://b.a.example/x", True),
        (".a.example", "https://ba.example/x", False),
        ("a.example", "https://a.example@b.example/x", False),
        ("a.example", "https://user@a.example/x", False),
        ("a.example", "https://a.example:x/", False),
        ("a.example", "https://a.example/x y", False),
    ],
)
def test_the_site_lists_the_hosts(entry: str, url: str, allowed: bool, settings: Any) -> None:
    settings.WEBHOOK_HOSTS = [entry]
    if allowed:
        destination.checked(url)
    else:
        with pytest.raises(destination.NotAllowed):
            destination.checked(url)


def test_every_channel_loads_by_its_line() -> None:
    for kind in channels.KINDS:
        assert channels.of(kind.name) is channels.of(kind.name)
    assert len({kind.name for kind in channels.KINDS}) == len(channels.KINDS)
    with pytest.raises(LookupError):
        channels.of("pigeon")
