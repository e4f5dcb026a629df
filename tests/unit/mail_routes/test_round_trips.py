"""Round trips step by step, against servers that answer as a test says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import reverse

from mailing import Clock, free_port
from soc.alerts.models import OPEN, Alert
from soc.mail_routes import accounts, mailbox, marks, submission, tasks, trips
from soc.mail_routes.ends import EndFault, Fault, LinkSecurity, MailEnd, Stopwatch
from soc.mail_routes.mailbox import FoundMail
from soc.mail_routes.models import MailAccount, MailRoute, RoundTrip
from soc.mail_routes.pages import journey, read_detail

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("plain_static_files")]

DONE, WAITING = RoundTrip.State.DONE, RoundTrip.State.WAITING


class MailSystem:
    """Takes mail, and has it in the mailbox at once unless it is held."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.fault: EndFault | None = None
        self.held = False
        self.folder = "INBOX"
        self.quota = ""
        self.mails: list[FoundMail] = []
        self.submitted: list[EmailMessage] = []
        self.deleted: list[FoundMail] = []
        self.logins = 0

    def submit(self, end: MailEnd, mail: EmailMessage, watch: Stopwatch) -> None:
        self.logins += 1
        if self.fault:
            raise self.fault
        self.submitted.append(mail)
        if not self.held:
            self.deliver(mail)

    def deliver(self, mail: EmailMessage) -> None:
        uid, spam = len(self.submitted), self.folder != "INBOX"
        self.mails.append(FoundMail(uid, mail[marks.MARK], self.folder, spam, self.clock.now, ()))

    @contextmanager
    def opened(self, end: MailEnd) -> Iterator[MailSystem]:
        self.logins += 1
        if self.fault:
            raise self.fault
        yield self

    def find(self, token: str, inbox: str, spam: str) -> list[FoundMail]:
        return list(self.mails)

    def full(self) -> str:
        return self.quota

    def delete(self, mails: Sequence[FoundMail]) -> None:
        self.deleted += mails
        self.mails = [mail for mail in self.mails if mail not in mails]


@pytest.fixture
def system(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> MailSystem:
    made = MailSystem(clock)
    monkeypatch.setattr(submission, "submit", made.submit)
    monkeypatch.setattr(mailbox, "opened", made.opened)
    return made


@pytest.fixture
def route(clock: Clock) -> MailRoute:
    account = MailAccount.objects.create(name="probe", user="probe", secret="secret")
    return MailRoute.objects.create(
        name="north to south",
        smtp_host="mail.north.example",
        smtp_account=account,
        sender="probe@north.example",
        recipient="probe@south.example",
        imap_host="mail.south.example",
        imap_account=account,
        next_run_at=clock.now,
    )


def begin() -> RoundTrip:
    (key,) = trips.start_due()
    trips.step(key)
    return RoundTrip.objects.get(pk=key)


def go(trip: RoundTrip, clock: Clock, **by: float) -> RoundTrip:
    """Take the next step when it is due, or after a time."""
    clock.now = max(clock.now + timedelta(**by), trip.next_step_at)
    trips.step(trip.pk)
    trip.refresh_from_db()
    return trip


def next_turn(clock: Clock) -> None:
    """Move the clock to the route's next turn, which may have passed already."""
    clock.now = max(clock.now, MailRoute.objects.get().next_run_at)


def alerts() -> list[str]:
    firing = Alert.objects.filter(OPEN).exclude(state=Alert.State.PENDING)
    found = firing.select_related("rule").order_by("pk")
    return [f"{alert.rule.name} {alert.get_severity_display()}" for alert in found]


def test_a_mail_that_arrives_ends_its_trip_and_is_deleted(
    system: MailSystem, route: MailRoute, clock: Clock
) -> None:
    trip = begin()
    assert (trip.state, trip.sent_at) == (WAITING, clock.now)
    go(trip, clock)
    assert (trip.state, trip.outcome, trip.folder) == (DONE, "on-time", "INBOX")
    assert [mail.mark for mail in system.deleted] == [trip.mark]
    assert alerts() == []
    assert trips.step(trip.pk) == (None, 0), "a task that comes twice does nothing"
    assert len(system.submitted) == 1


def test_a_step_asks_for_the_next_one_and_no_worker_waits(
    system: MailSystem, route: MailRoute, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(tasks.take_step, "apply_async", lambda _, **how: asked.append(how))
    system.held = True
    assert tasks.start_due() == 1
    key = RoundTrip.objects.get().pk
    pauses = []
    for _ in range(12):
        tasks.take_step(key)
        clock.move(seconds=asked[-1]["countdown"])
        pauses.append(asked[-1]["countdown"])
    assert pauses[0] == trips.FIRST_LOOK
    assert pauses == sorted(pauses)
    assert pauses[-1] == trips.LONGEST_PAUSE


def test_a_late_mail_warns_and_a_lost_one_is_critical_until_one_arrives(
    system: MailSystem, route: MailRoute, clock: Clock
) -> None:
    system.held = True
    trip = begin()
    go(trip, clock, seconds=60)
    assert alerts() == []
    go(trip, clock, seconds=120)
    assert (trip.state, alerts()) == (WAITING, ["delivery warning"])
    go(trip, clock, minutes=60)
    assert (trip.outcome, alerts()) == ("lost", ["delivery critical"])

    lost = system.submitted[0]
    system.held = False
    system.deliver(lost)
    second = go(begin(), clock)
    assert (second.outcome, alerts()) == ("on-time", [])
    trip.refresh_from_db()
    assert trip.outcome == "lost", "what was reported stays"
    assert trip.arrived_at is not None, "but its arrival is known"
    assert system.mails == []


def test_spam_and_a_full_mailbox_are_named(
    system: MailSystem, route: MailRoute, clock: Clock
) -> None:
    system.folder = "Junk"
    assert go(begin(), clock).outcome == "spam"
    assert alerts() == ["spam warning"]
    system.held, system.quota = True, "storage 100 of 100"
    next_turn(clock)
    assert go(begin(), clock).outcome == "full"
    assert alerts() == ["spam warning", "full critical"]


@pytest.mark.parametrize(
    ("fault", "outcome", "alert"),
    [
        (Fault.REFUSED, "refused", "refused critical"),
        (Fault.FULL, "full", "full critical"),
        (Fault.LOGIN, "login", "login critical"),
        (Fault.CERTIFICATE, "certificate", "certificate critical"),
    ],
)
def test_a_refusal_is_reported_at_once(
    system: MailSystem, route: MailRoute, clock: Clock, fault: Fault, outcome: str, alert: str
) -> None:
    system.fault = EndFault(fault, "no")
    trip = begin()
    assert (trip.state, trip.outcome, trip.detail, alerts()) == (DONE, outcome, "no", [alert])


def test_a_server_that_is_away_once_is_no_alert(
    system: MailSystem, route: MailRoute, clock: Clock
) -> None:
    system.fault = EndFault(Fault.UNREACHABLE, "away")
    trip = begin()
    assert (trip.state, alerts()) == (RoundTrip.State.SUBMITTING, [])
    system.fault = None
    go(trip, clock)
    go(trip, clock)
    assert (trip.outcome, alerts()) == ("on-time", [])

    system.fault = EndFault(Fault.UNREACHABLE, "away")
    next_turn(clock)
    assert go(begin(), clock).outcome == "unreachable"
    assert alerts() == ["submission critical"]


def test_a_deferred_mail_is_submitted_again(
    system: MailSystem, route: MailRoute, clock: Clock
) -> None:
    system.fault = EndFault(Fault.DEFERRED, "451 greylisted")
    trip = begin()
    go(trip, clock, minutes=3)
    assert alerts() == ["delivery warning"]
    system.fault = None
    go(trip, clock)
    go(trip, clock)
    assert (trip.outcome, alerts()) == ("on-time", [])


def test_a_refused_account_is_held_until_it_is_changed(
    system: MailSystem, route: MailRoute, clock: Clock
) -> None:
    system.fault = EndFault(Fault.LOGIN, "535")
    for _ in range(4):
        begin()
        next_turn(clock)
    assert system.logins == accounts.MOST_REFUSALS
    account = MailAccount.objects.get()
    assert accounts.is_held(account)

    accounts.try_now([account.pk])
    begin()
    assert system.logins == accounts.MOST_REFUSALS + 1, "a person may try once more"
    clock.move(hours=1)
    begin()
    assert system.logins == accounts.MOST_REFUSALS + 1

    system.fault = None
    account = MailAccount.objects.get()
    account.secret = "better"
    account.save()
    next_turn(clock)
    assert go(begin(), clock).outcome == "on-time"
    assert alerts() == []


def test_a_lost_step_is_found_again(system: MailSystem, route: MailRoute, clock: Clock) -> None:
    (key,) = trips.start_due()
    assert trips.start_due() == [], "a route has one mail on its way"
    clock.now = RoundTrip.objects.get().next_step_at + trips.OVERDUE
    assert trips.start_due() == [key]


def test_a_disabled_route_abandons_its_trip_and_ends_its_alerts(
    system: MailSystem, route: MailRoute, clock: Clock
) -> None:
    system.fault = EndFault(Fault.REFUSED, "no")
    begin()
    system.fault, system.held = None, True
    next_turn(clock)
    trip = begin()
    route = MailRoute.objects.get()
    route.enabled = False
    route.save()
    go(trip, clock)
    assert (trip.outcome, alerts()) == ("abandoned", [])
    assert trips.start_due() == []


# --- The mail -----------------------------------------------------------------------------------


RECEIVED = [
    "from mx by box.south.example (LMTP) id 3; Tue, 1 Dec 2026 12:00:09 +0000",
    "from msa by mx.south.example id 2;\r\n Tue, 1 Dec 2026 13:00:07 +0100",
    "from [192.0.2.1] by msa.north.example id 1; Tue, 1 Dec 2026 12:00:01 +0000",
    "by nobody; sometime",
]


def test_hops_are_in_the_order_of_the_way() -> None:
    hops = marks.hops(RECEIVED)
    at = datetime(2026, 12, 1, 12, tzinfo=UTC)
    assert [(hop.by, (hop.at - at).total_seconds()) for hop in hops] == [
        ("msa.north.example", 1),
        ("mx.south.example", 7),
        ("box.south.example", 9),
    ]


def test_a_mail_has_its_mark_and_asks_nobody_for_an_answer(clock: Clock) -> None:
    mail = marks.make(
        sender="a@north.example",
        recipient="b@south.example",
        site="local",
        token="t0",
        mark="m0",
        now=clock.now,
    )
    assert marks.word("t0") in mail["Subject"]
    assert (mail[marks.ROUTE], mail[marks.MARK]) == ("t0", "m0")
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Message-ID"].endswith("@north.example>")


# --- The pages ----------------------------------------------------------------------------------


@pytest.fixture
def viewer() -> Client:
    user = User.objects.create_user("vera")
    user.groups.add(Group.objects.get(name="Viewers"))
    client = Client()
    client.force_login(user)
    return client


def arrived(route: MailRoute, clock: Clock, **values: Any) -> RoundTrip:
    return RoundTrip.objects.create(
        **{
            "route": route,
            "state": DONE,
            "outcome": "on-time",
            "started_at": clock.now,
            "sent_at": clock.now,
            "arrived_at": clock.now + timedelta(seconds=9),
            "connect_ms": 20,
            "tls_ms": 30,
            "login_ms": 10,
            "submit_ms": 40,
            "hops": [{"by": "msa", "seconds": 1.0}, {"by": "mx", "seconds": -2.0}],
        }
        | values
    )


def test_a_picture_shows_the_phases_and_the_hops(route: MailRoute, clock: Clock) -> None:
    arrived(route, clock)
    detail = read_detail(route, clock.now)
    drawn = journey(detail.row.trips[0])
    assert [(part.value, part.length) for part in drawn.submission] == [
        ("Connect", 20),
        ("TLS", 30),
        ("Login", 10),
        ("Submit", 40),
    ]
    assert [(part.value, part.length) for part in drawn.delivery] == [
        ("msa", 1),
        ("mx", 0),
        ("mailbox", 8),
    ]


Count = Callable[[int], Any]


def test_pages_show_a_route_at_a_fixed_cost(
    viewer: Client, route: MailRoute, clock: Clock, django_assert_max_num_queries: Count
) -> None:
    arrived(route, clock)
    for number in range(20):
        more = MailRoute.objects.get(pk=route.pk)
        more.pk, more.name, more.token = None, f"route {number}", f"token {number}"
        more._state.adding = True
        more.save()
        arrived(more, clock)
    for path, words in (
        (reverse("mail-routes"), ("north to south", "on time", "9 s")),
        (reverse("mail-route", args=[route.pk]), ("north to south", "Connect", "mailbox")),
        (reverse("mail-matrix"), ("Round trip", "north to south", "south.example")),
    ):
        with django_assert_max_num_queries(12):
            page = viewer.get(path, secure=True)
        assert page.status_code == 200
        for word in words:
            assert word in page.content.decode(), (path, word)


def test_who_may_check_a_route_makes_it_due(
    browser: Client, viewer: Client, route: MailRoute, clock: Clock
) -> None:
    MailRoute.objects.update(next_run_at=clock.now + timedelta(hours=1))
    path = reverse("mail-route-check", args=[route.pk])
    assert viewer.post(path, secure=True).status_code == 403
    assert browser.post(path, secure=True).status_code == 302
    assert MailRoute.objects.get().next_run_at == clock.now


def test_an_account_of_a_token_needs_its_endpoint(browser: Client) -> None:
    values = {"name": "tenant", "user": "probe", "method": "token", "secret": "s"}
    page = browser.post(reverse("admin:mail_routes_mailaccount_add"), values, secure=True)
    assert "An access token needs it." in page.content.decode()
    assert not MailAccount.objects.exists()


def test_the_admin_keeps_a_route_and_shows_no_secret(browser: Client, route: MailRoute) -> None:
    page = browser.get(
        reverse("admin:mail_routes_mailroute_change", args=[route.pk]), secure=True
    ).content.decode()
    assert "north to south" in page
    address = reverse("admin:mail_routes_mailaccount_change", args=[route.imap_account_id])
    page = browser.get(address, secure=True).content.decode()
    assert "Often the mail address." in page
    assert 'value="secret"' not in page


def test_a_server_that_is_not_there_is_a_fault_with_its_name() -> None:
    end = MailEnd("127.0.0.1", free_port(), LinkSecurity.NONE)
    mail = marks.make(
        sender="a@b.example", recipient="c@d.example", site="s", token="t", mark="m",
        now=datetime(2026, 12, 1, tzinfo=UTC),
    )  # fmt: skip
    with pytest.raises(EndFault, match=f"127.0.0.1:{end.port} cannot be used") as caught:
        submission.submit(end, mail, Stopwatch())
    assert caught.value.fault == Fault.UNREACHABLE
