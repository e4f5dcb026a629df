"""Round trips through Postfix and Dovecot, and through Exim and Cyrus: what each case reports."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

import mail_hosts
from harness import wait_for
from mail_hosts import IMAPS, PASSWORD, SUBMISSION, WITH_EXPIRED_CERTIFICATE, MailHost
from mailing import free_port
from soc.alerts.models import OPEN, Alert
from soc.mail_routes import trips
from soc.mail_routes.models import MailAccount, MailRoute, RoundTrip
from soc.trust.models import Authority

pytestmark = pytest.mark.django_db

DONE = RoundTrip.State.DONE


@pytest.fixture(scope="module", params=mail_hosts.PACKAGES)
def host(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MailHost]:
    made = mail_hosts.start(request.param, tmp_path_factory.mktemp("site"))
    yield made
    made.remove()


@dataclass(frozen=True)
class Case:
    """What is wrong, how the trip ends, and the alerts that are open then."""

    name: str
    outcome: str
    alerts: set[str]
    recipient: str = "robot"
    changes: dict[str, Any] = field(default_factory=dict)
    password: str = PASSWORD
    clock: float = 0
    """Minutes by which the clock is moved when the mail is on its way."""


CASES = (
    Case("on time", "on-time", set()),
    Case("late (greylisted)", "late", {"delivery warning"}, "grey", {"late_after": 2}),
    Case("lost (discarded)", "lost", {"delivery critical"}, "gone", clock=61),
    Case("spam folder", "spam", {"spam warning"}, "junk"),
    Case("full mailbox", "full", {"full critical"}, "full"),
    Case("refused", "refused", {"refused critical"}, "refused"),
    Case("wrong password to submit", "login", {"login critical"}, password="wrong"),
    Case(
        "expired certificate to submit",
        "certificate",
        {"certificate critical"},
        changes={"smtp_port": SUBMISSION + WITH_EXPIRED_CERTIFICATE},
    ),
    Case("no server to submit to", "unreachable", {"submission critical"}),
    Case("wrong password to read", "unread", {"login critical"}, clock=61),
    Case("expired certificate to read", "unread", {"certificate critical"}, clock=61),
    Case("IMAP down", "unread", {"mailbox critical"}, clock=61),
)
"""The last takes the mailboxes' server away for good."""


def account(name: str, user: str, password: str = PASSWORD) -> MailAccount:
    return MailAccount.objects.create(name=name, user=user, secret=password)


def route_of(host: MailHost, case: Case) -> MailRoute:
    authority = Authority.objects.create(name="the mail host's", pem=host.authority)
    # Nobody reads the mailbox of what is discarded or refused.
    reader = case.recipient if case.recipient in mail_hosts.MAILBOXES else "robot"
    changes = dict(case.changes)
    reading = account("reading", reader)
    match case.name:
        case "no server to submit to":
            changes["smtp_port"] = free_port()
        case "wrong password to read":
            MailAccount.objects.filter(pk=reading.pk).update(secret="wrong")
        case "expired certificate to read":
            changes["imap_port"] = host.let_certificate_expire()
        case "IMAP down":
            host.stop_imap()
    ends = {"smtp_port": SUBMISSION, "imap_port": IMAPS, "late_after": 60} | changes
    return MailRoute.objects.create(
        name=f"{host.software}: {case.name}",
        smtp_host=host.host,
        smtp_authority=authority,
        smtp_account=account("sending", "soc", case.password),
        sender="soc@health.internal",
        recipient=f"{case.recipient}@health.internal",
        imap_host=host.host,
        imap_authority=authority,
        imap_account=reading,
        **ends,
    )


def go(key: int) -> RoundTrip:
    """Take the next step of a trip now, whatever pause it was given."""
    RoundTrip.objects.filter(pk=key).exclude(state=DONE).update(next_step_at=timezone.now())
    trips.step(key)
    return RoundTrip.objects.get(pk=key)


class RunningClock:
    """The time, and by how much it was moved."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.moved = timedelta()
        real = timezone.now
        monkeypatch.setattr(timezone, "now", lambda: real() + self.moved)

    def move(self, minutes: float) -> None:
        self.moved += timedelta(minutes=minutes)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> RunningClock:
    return RunningClock(monkeypatch)


def travel(case: Case, clock: RunningClock) -> RoundTrip:
    """Make a round trip to its end, with the real time that mail takes."""
    (key,) = trips.start_due()
    go(key)
    if case.clock:
        # Two looks for a rule that wants two; after the third nobody waits any more.
        go(key)
        clock.move(minutes=1)
        go(key)
        clock.move(minutes=case.clock)

    def ended() -> RoundTrip | None:
        trip = go(key)
        return trip if trip.state == DONE else None

    return wait_for(f"the end of {case.name}", ended)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_case_is_its_condition(
    host: MailHost, case: Case, clock: RunningClock, capsys: pytest.CaptureFixture[str]
) -> None:
    route_of(host, case)
    trip = travel(case, clock)
    firing = Alert.objects.filter(OPEN).exclude(state=Alert.State.PENDING)
    alerts = {
        f"{alert.rule.name} {alert.get_severity_display()}"
        for alert in firing.select_related("rule")
    }
    with capsys.disabled():
        seconds = "-" if trip.delivery is None else f"{trip.delivery.total_seconds():.1f} s"
        print(
            f"\n{host.software:20} {case.name:30} {trip.outcome:12} {seconds:>7} "
            f"{', '.join(alerts) or 'none'}: {trip.detail or '-'}"
        )
    assert (trip.outcome, alerts) == (case.outcome, case.alerts)
    if trip.arrived_at:
        assert None not in (trip.connect_ms, trip.tls_ms, trip.login_ms, trip.submit_ms)
        assert len(trip.hops) >= 2
        assert host.mails(case.recipient) == 0
        assert host.mails(case.recipient, "Junk" if case.recipient == "junk" else "INBOX") == 0
