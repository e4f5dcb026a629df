"""The report of a shift: its numbers, when it is written, and its page."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import Group, User
from django.core.exceptions import ValidationError
from django.test import Client
from django.utils import timezone

from mailing import Clock
from soc.alerts import actions, shifts
from soc.alerts.models import Alert, AlertEvent, Rule
from soc.core.severity import Severity
from soc.notify import reports
from soc.notify.models import OutboundMail, Subscription
from soc.oncall.models import Rota, RotaMember, ShiftOverride

if TYPE_CHECKING:
    from conftest import Report

pytestmark = pytest.mark.django_db


@pytest.fixture
def rota(clock: Clock) -> Rota:
    """A rota of two with shifts of a day, whose next shift begins in an hour."""
    begins = timezone.localtime(clock.now + timedelta(hours=1)).replace(microsecond=0)
    made = Rota.objects.create(
        name="primary",
        time_zone="UTC",
        starts_on=begins.date() - timedelta(days=2),
        handover_at=begins.time(),
        shift_days=1,
    )
    for position, name in enumerate(("eve", "bob")):
        person = User.objects.create_user(name, f"{name}@health.internal")
        RotaMember.objects.create(rota=made, person=person, position=position)
    return made


def stamp(clock: Clock) -> None:
    """Let the changes since the last call have happened now: a field's default knows no clock."""
    AlertEvent.objects.exclude(text="stamped").update(at=clock.now, text="stamped")


def test_the_numbers_of_a_shift(rule: Rule, report: Report, clock: Clock) -> None:
    report("critical", subject="before")
    stamp(clock)
    clock.move(minutes=59)
    start = clock.now
    report("critical", subject="a")
    stamp(clock)
    clock.move(minutes=10)
    actions.acknowledge(Alert.objects.filter(subject__name="a"), "jo")
    stamp(clock)
    clock.move(minutes=9)
    report("ok", subject="a")
    stamp(clock)
    report("ok", subject="before")
    stamp(clock)
    report("warning", subject="b")
    stamp(clock)
    shift = shifts.read(start, clock.now + timedelta(seconds=1))
    assert (shift.opened, shift.acknowledged, shift.resolved) == (2, 1, 2)
    assert shift.open_count == len(shift.open_rows) == 1
    assert (shift.mtta, shift.mean_to_acknowledge) == ("10 min", timedelta(minutes=10))
    # 20 minutes the one and 81 the other, which opened before the shift.
    assert shift.mean_to_resolve == timedelta(minutes=50, seconds=30)
    assert [(one.name, one.count, one.bar) for one in shift.noisiest] == [
        ("a", 1, 100),
        ("b", 1, 100),
    ]
    assert (shift.changes.total_fired, shift.changes.total_resolved) == (2, 2)


def test_a_shift_in_which_nothing_happened(rule: Rule, clock: Clock) -> None:
    shift = shifts.read(clock.now - timedelta(days=7), clock.now)
    assert (shift.opened, shift.mtta, shift.mttr, list(shift.noisiest)) == (
        0,
        "none",
        "none",
        [],
    )
    notice = shifts.notice(shift)
    assert notice.title == "0 open, 0 opened, 0 resolved"
    assert notice.facts["Fired, from start to end"] == "▁" * 24


def test_the_noisiest_come_first(rule: Rule, report: Report, clock: Clock) -> None:
    start = clock.now
    Rule.objects.update(flap_changes=0)
    for _ in range(3):
        report("critical", subject="loud")
        report("ok", subject="loud")
    report("warning", subject="calm")
    shift = shifts.read(start, clock.now + timedelta(seconds=1))
    assert [(one.name, one.count, one.bar) for one in shift.noisiest] == [
        ("loud", 3, 100),
        ("calm", 1, 33),
    ]


def test_a_subscriptions_filter_is_that_of_its_report(
    rule: Rule, report: Report, clock: Clock
) -> None:
    start = clock.now
    report("warning", subject="a")
    report("critical", subject="b")
    until = clock.now + timedelta(seconds=1)
    assert shifts.read(start, until, Severity.CRITICAL).opened == 1
    assert shifts.read(start, until, Severity.INFO, ("other",)).opened == 0


def test_the_number_of_statements_does_not_depend_on_the_alerts(
    rule: Rule, report: Report, clock: Clock, django_assert_num_queries: Any
) -> None:
    start = clock.now
    for _ in range(2):
        for number in range(20):
            report("critical", subject=f"bot-{number}")
        with django_assert_num_queries(7):
            shifts.read(start, clock.now)


# --- When it is written -------------------------------------------------------------------------


def handovers() -> list[OutboundMail]:
    return list(OutboundMail.objects.filter(status="handover").order_by("created_at"))


def test_it_is_written_once_when_a_shift_begins_to_who_begins(
    rule: Rule, rota: Rota, report: Report, clock: Clock
) -> None:
    Subscription.objects.create(name="shifts", report="handover", rota=rota)
    assert reports.send_due(clock.now) == 0
    report("critical")
    clock.move(minutes=58)
    assert reports.send_due(clock.now) == 0
    clock.move(minutes=2)
    begins = Subscription.objects.get().next_report_at
    assert [reports.send_due(clock.now) for _ in range(3)] == [1, 0, 0]
    (mail,) = handovers()
    # The first, third, fifth day is eve's.
    assert mail.recipients == ["eve@health.internal"]
    assert mail.subject.startswith("HANDOVER: 1 open, 1 opened, 0 resolved")
    assert "1. critical: bot-1" in mail.text
    assert "/alerts/handover/?since=" in mail.link
    subscription = Subscription.objects.get()
    assert subscription.next_report_at == begins + timedelta(days=1)
    assert subscription.reported_until == begins
    clock.move(days=1)
    assert reports.send_due(clock.now) == 1
    assert handovers()[-1].recipients == ["bob@health.internal"]


def test_an_override_moves_the_handover(rule: Rule, rota: Rota, clock: Clock) -> None:
    Subscription.objects.create(name="shifts", report="handover", rota=rota)
    reports.send_due(clock.now)
    eve = User.objects.get(username="eve")
    begins = clock.now + timedelta(minutes=20)
    ShiftOverride.objects.create(
        rota=rota, person=eve, starts_at=begins, ends_at=clock.now + timedelta(hours=30)
    )
    reports.send_due(clock.now)
    assert Subscription.objects.get().next_report_at == begins
    clock.move(minutes=21)
    assert reports.send_due(clock.now) == 1
    assert handovers()[0].recipients == ["eve@health.internal"]


def test_an_outage_makes_one_report_of_several_shifts(rule: Rule, rota: Rota, clock: Clock) -> None:
    Subscription.objects.create(name="shifts", report="handover", rota=rota)
    reports.send_due(clock.now)
    clock.move(days=5)
    assert reports.send_due(clock.now) == 1
    assert reports.send_due(clock.now) == 0


def test_a_subscription_without_a_rota_has_no_shifts() -> None:
    with pytest.raises(ValidationError, match="Only a rota has shifts"):
        Subscription(name="x", recipients="a@health.internal", report="handover").full_clean()


# --- The page -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("plain_static_files")
def test_the_page_is_for_viewers(rule: Rule, rota: Rota, report: Report) -> None:
    report("critical", subject="<b>x</b>")
    person = User.objects.create_user("vic")
    client = Client()
    client.force_login(person)
    assert client.get("/alerts/handover/", secure=True).status_code == 403
    person.groups.add(Group.objects.get(name="Viewers"))
    page = client.get("/alerts/handover/", secure=True).content.decode()
    assert "&lt;b&gt;x&lt;/b&gt;" in page
    assert "primary, bob" in page


@pytest.mark.parametrize(
    "query",
    [
        "since=x&until=y",
        "since=2026-12-01T00:00:00&until=2026-12-02T00:00:00",
        "since=2026-12-02T00:00:00Z&until=2026-12-01T00:00:00Z",
        "since=2020-12-02T00:00:00Z&until=2026-12-01T00:00:00Z",
        "since=2026-13-01T00:00:00Z&until=2026-12-01T00:00:00Z",
        "since=2026-12-01T00:00:00Z",
        "",
    ],
)
def test_what_names_no_time_shows_the_present_one(rule: Rule, browser: Client, query: str) -> None:
    assert browser.get(f"/alerts/handover/?{query}", secure=True).status_code == 200


def test_the_link_of_the_mail_shows_its_shift(
    rule: Rule, browser: Client, report: Report, clock: Clock
) -> None:
    report("critical")
    shift = shifts.read(clock.now - timedelta(hours=8), clock.now)
    page = browser.get(shift.address.partition("8443")[2], secure=True).content.decode()
    assert "8 h 00 min" in page
