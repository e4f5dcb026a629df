"""Who is on call: turns, hours, overrides, gaps, and days on which clocks change."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import icalendar
import pytest
from django.contrib.auth.models import Group, User
from django.core.exceptions import ValidationError
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from soc.common.times import moment
from soc.core import tokens
from soc.notify import outbox
from soc.notify.models import OutboundMail, Subscription
from soc.notify.recipients import Recipients
from soc.notify.templates import SAMPLE
from soc.oncall import pages, plan
from soc.oncall.models import Rota, RotaMember, ShiftOverride
from soc.oncall.plan import NOBODY, NOT_STARTED, OUT_OF_HOURS, OnCall, Plan

if TYPE_CHECKING:
    from mailing import Clock

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = (
    *("Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Africa/Casablanca"),
    *("Antarctica/Troll", "Pacific/Apia", "Asia/Kathmandu"),
)
MONDAY = date(2026, 11, 30)


def user(name: str, **values: Any) -> User:
    """Return a person who is not stored."""
    return User(
        **{"username": name, "email": f"{name}@health.internal", "is_active": True} | values
    )


ANN, BOB, CEM = (user(name) for name in ("ann", "bob", "cem"))


def of(*people: User, overrides: tuple[ShiftOverride, ...] = (), **values: Any) -> Plan:
    rota = Rota(
        **{"name": "primary", "time_zone": "Europe/Berlin", "starts_on": MONDAY}
        | {"handover_at": time(9), "shift_days": 7}
        | values
    )
    return Plan(rota, people, overrides)


def berlin(*when: int) -> datetime:
    return datetime(*when, tzinfo=BERLIN)


def said(spans: list[OnCall]) -> list[tuple[str, str, str]]:
    """Return who is on call from when until when by Berlin's clocks."""
    return [
        (
            f"{span.start.astimezone(BERLIN):%m-%d %H:%M}",
            f"{span.end.astimezone(BERLIN):%m-%d %H:%M}",
            span.person.username if span.person else span.why,
        )
        for span in spans
    ]


# --- Turns --------------------------------------------------------------------------------------


def test_people_take_turns_at_the_hour_of_the_handover() -> None:
    spans = of(ANN, BOB).spans(berlin(2026, 11, 30, 9), berlin(2026, 12, 21, 9))
    assert said(spans) == [
        ("11-30 09:00", "12-07 09:00", "ann"),
        ("12-07 09:00", "12-14 09:00", "bob"),
        ("12-14 09:00", "12-21 09:00", "ann"),
    ]


def test_before_the_first_shift_nobody_ought_to_be_on_call() -> None:
    spans = of(ANN).spans(berlin(2026, 11, 29), berlin(2026, 12, 1))
    assert said(spans)[0] == ("11-29 00:00", "11-30 09:00", NOT_STARTED)
    assert not any(span.is_gap for span in spans)


def test_hours_leave_the_rest_of_the_day_to_nobody() -> None:
    nights = of(ANN, weekdays="MO,TU", hours_from=time(18), hours_until=time(8), shift_days=1)
    spans = nights.spans(berlin(2026, 11, 30, 12), berlin(2026, 12, 3, 12))
    assert said(spans) == [
        ("11-30 12:00", "11-30 18:00", OUT_OF_HOURS),
        ("11-30 18:00", "12-01 08:00", "ann"),
        ("12-01 08:00", "12-01 18:00", OUT_OF_HOURS),
        ("12-01 18:00", "12-02 08:00", "ann"),
        ("12-02 08:00", "12-03 12:00", OUT_OF_HOURS),
    ]


@pytest.mark.parametrize(
    ("person", "why"),
    [
        (user("off", is_active=False), "off is disabled"),
        (user("mute", email=""), "mute has no mail address"),
    ],
)
def test_who_cannot_be_notified_leaves_a_gap_that_says_so(person: User, why: str) -> None:
    rota = of(ANN, person)
    assert said(rota.gaps(berlin(2026, 12, 1), berlin(2026, 12, 20))) == [
        ("12-07 09:00", "12-14 09:00", why)
    ]


def test_a_rota_without_people_is_a_gap() -> None:
    assert of().at(berlin(2026, 12, 1)).why == NOBODY
    assert of().at(berlin(2026, 12, 1)).is_gap


# --- Overrides ----------------------------------------------------------------------------------


def override(person: User, start: datetime, end: datetime, note: str = "") -> ShiftOverride:
    return ShiftOverride(person=person, starts_at=start, ends_at=end, note=note)


def test_an_override_takes_its_time_and_no_more() -> None:
    away = override(CEM, berlin(2026, 12, 2, 12), berlin(2026, 12, 8, 12), "dentist")
    spans = of(ANN, BOB, overrides=(away,)).spans(berlin(2026, 12, 1), berlin(2026, 12, 9))
    assert said(spans) == [
        ("12-01 00:00", "12-02 12:00", "ann"),
        ("12-02 12:00", "12-08 12:00", "cem"),
        ("12-08 12:00", "12-09 00:00", "bob"),
    ]
    assert [span.override for span in spans] == [False, True, False]


def test_the_newer_of_two_overrides_holds_and_one_fills_a_gap() -> None:
    first = override(BOB, berlin(2026, 12, 1), berlin(2026, 12, 3))
    second = override(CEM, berlin(2026, 12, 2), berlin(2026, 12, 2, 12))
    spans = of(overrides=(first, second)).spans(berlin(2026, 12, 1), berlin(2026, 12, 4))
    assert [who for _, _, who in said(spans)] == ["bob", "cem", "bob", NOBODY]


# --- Clocks that change -------------------------------------------------------------------------


def test_a_shift_over_the_change_to_winter_time_is_an_hour_longer() -> None:
    """Berlin, 25 October 2026: 03:00 becomes 02:00."""
    rota = of(ANN, BOB, starts_on=date(2026, 10, 19), shift_days=7)
    spans = rota.spans(berlin(2026, 10, 19, 9), berlin(2026, 11, 2, 9))
    assert [span.end - span.start for span in spans] == [
        timedelta(days=7, hours=1),
        timedelta(days=7),
    ]
    assert said(spans)[0][1] == "10-26 09:00"


def test_a_handover_in_the_hour_that_the_clocks_skip_is_taken_with_the_offset_before() -> None:
    """Berlin, 28 March 2027: 02:00 becomes 03:00; RFC 5545, 3.3.5."""
    rota = of(ANN, BOB, starts_on=date(2027, 3, 27), handover_at=time(2, 30), shift_days=1)
    spans = rota.spans(berlin(2027, 3, 27, 12), berlin(2027, 3, 29, 12))
    assert said(spans) == [
        ("03-27 12:00", "03-28 03:30", "ann"),
        ("03-28 03:30", "03-29 02:30", "bob"),
        ("03-29 02:30", "03-29 12:00", "ann"),
    ]


def test_a_handover_in_the_hour_that_comes_twice_is_at_the_first() -> None:
    rota = of(ANN, BOB, starts_on=date(2026, 10, 24), handover_at=time(2, 30), shift_days=1)
    spans = rota.spans(berlin(2026, 10, 24, 12), berlin(2026, 10, 26, 12))
    assert spans[0].end == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)


@given(
    st.sampled_from(ZONES),
    st.datetimes(datetime(2011, 1, 1), datetime(2040, 1, 1)),
    st.integers(1, 20),
    st.times(),
    st.booleans(),
)
def test_there_is_no_hole_and_no_overlap_whatever_the_clocks_do(
    zone: str, wall: datetime, days: int, handover: time, nights: bool
) -> None:
    hours = {"hours_from": time(22), "hours_until": time(6)} if nights else {}
    starts_on = wall.date() - timedelta(days=40)
    values: dict[str, Any] = {"time_zone": zone, "starts_on": starts_on, "handover_at": handover}
    rota = of(ANN, BOB, CEM, shift_days=days, **values, **hours)
    since = moment(wall, ZoneInfo(zone))
    until = since + timedelta(days=45)
    spans = rota.spans(since, until)
    assert spans[0].start == since
    assert spans[-1].end == until
    assert all(one.end == two.start for one, two in pairwise(spans))
    assert all(span.start < span.end for span in spans)
    whole = rota.spans(since - timedelta(days=30), until)
    at = since + timedelta(days=9, hours=5)
    assert [s.person for s in spans if s.start <= at < s.end] == [
        s.person for s in whole if s.start <= at < s.end
    ]


def test_a_rota_asks_the_function_that_windows_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def spy(wall: datetime, zone: Any = None) -> datetime:
        asked.append(wall)
        return moment(wall, zone)

    monkeypatch.setattr("soc.oncall.plan.moment", spy)
    of(ANN).spans(berlin(2026, 12, 1), berlin(2026, 12, 9))
    assert asked


# --- What is stored -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"time_zone": "Mars/Base"}, "Invalid time zone"),
        ({"time_zone": "../etc/passwd"}, "Invalid time zone"),
        ({"weekdays": "MO,XX"}, "Invalid weekdays XX"),
        ({"shift_days": 0}, "greater than or equal to 1"),
        ({"hours_from": time(8)}, "Hours need a start and an end"),
        ({"hours_from": time(8), "hours_until": time(8)}, "Round the clock"),
    ],
)
@pytest.mark.django_db
def test_a_rota_that_makes_no_sense_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Rota(**{"name": "x"} | values).full_clean()


@pytest.fixture
def rota(db: None, clock: Clock) -> Rota:
    """A rota of two, of whom ann is on call."""
    made = Rota.objects.create(
        name="primary", time_zone="UTC", starts_on=clock.now.date() - timedelta(days=1)
    )
    for position, name in enumerate(("eve", "bob")):
        person = User.objects.create_user(name, f"{name}@health.internal", first_name=name.title())
        RotaMember.objects.create(rota=made, person=person, position=position)
    return made


Make = Callable[..., Subscription]


def test_all_rotas_are_read_in_three_statements(
    rota: Rota, clock: Clock, django_assert_num_queries: Any
) -> None:
    for number in range(20):
        Rota.objects.create(name=f"r{number}")
    with django_assert_num_queries(3):
        views = pages.views(clock.now)
    (first,) = [view for view in views if view.rota == rota]
    assert (first.who, first.tone, first.following and first.following.person) == (
        "Eve",
        "ok",
        User.objects.get(username="bob"),
    )


def test_a_subscription_with_a_rota_goes_to_who_is_on_call(rota: Rota, clock: Clock) -> None:
    Subscription.objects.create(name="ops", recipients="ops@health.internal", rota=rota)
    outbox.enqueue(SAMPLE, "one")
    clock.move(days=7)
    outbox.enqueue(SAMPLE, "two")
    assert [mail.recipients for mail in OutboundMail.objects.order_by("created_at")] == [
        ["ops@health.internal", "eve@health.internal"],
        ["ops@health.internal", "bob@health.internal"],
    ]


def test_a_gap_falls_back_and_without_that_is_written_to_nobody(rota: Rota, clock: Clock) -> None:
    User.objects.update(is_active=False)
    ops = Subscription.objects.create(name="ops", rota=rota)
    assert outbox.enqueue(SAMPLE, "one") == 0
    ops.fallback_recipients = "boss@health.internal"
    ops.save()
    assert outbox.enqueue(SAMPLE, "two") == 1
    assert Recipients(clock.now).of(ops) == ["boss@health.internal"]


def test_the_end_is_for_who_was_on_call_then_and_for_who_is_now(rota: Rota, clock: Clock) -> None:
    Subscription.objects.create(name="ops", rota=rota)
    outbox.enqueue(SAMPLE, "one", topic="alert:1")
    OutboundMail.objects.update(state="sent", next_try_at=None)
    clock.move(days=7)
    assert outbox.conclude(SAMPLE, "end", topic="alert:1") == 1
    last = OutboundMail.objects.latest("created_at")
    assert sorted(last.recipients) == ["bob@health.internal", "eve@health.internal"]


# --- Pages --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("plain_static_files")
def test_the_page_is_for_viewers_and_overrides_for_operators(rota: Rota) -> None:
    person = User.objects.create_user("vic", is_staff=True)
    client = Client()
    client.force_login(person)
    assert client.get("/oncall/", secure=True).status_code == 403
    person.groups.add(Group.objects.get(name="Viewers"))
    page = client.get("/oncall/", secure=True).content.decode()
    assert "Eve" in page
    assert "Add an override" not in page
    person.groups.add(Group.objects.get(name="Operators"))
    assert "Add an override" in client.get("/oncall/live/", secure=True).content.decode()


def test_the_board_shows_it_and_complains_of_a_gap(rota: Rota, browser: Client) -> None:
    assert "<b>Eve</b> primary" in browser.get("/", secure=True).content.decode()
    User.objects.filter(username="eve").update(email="")
    page = browser.get("/", secure=True).content.decode()
    assert "Nobody is on call at primary: Eve has no mail address." in page


def test_a_new_rota_and_an_override_are_made_in_the_admin(rota: Rota, browser: Client) -> None:
    bob = User.objects.get(username="bob")
    form = {
        **{"rota": rota.pk, "person": bob.pk, "note": ""},
        **{"starts_at_0": "2026-12-01", "starts_at_1": "10:00"},
        **{"ends_at_0": "2026-12-01", "ends_at_1": "09:00"},
    }
    address = "/admin/oncall/shiftoverride/add/"
    assert "It ends before it starts." in browser.post(address, form, secure=True).content.decode()
    browser.post(address, form | {"ends_at_1": "12:00"}, secure=True)
    assert ShiftOverride.objects.get().person == bob


# --- Calendar and API ---------------------------------------------------------------------------


def test_the_calendar_has_shifts_and_gaps(rota: Rota, clock: Clock, browser: Client) -> None:
    bob = User.objects.get(username="bob")
    ShiftOverride.objects.create(
        rota=rota, person=bob, starts_at=clock.now, ends_at=clock.now + timedelta(hours=3)
    )
    answer = browser.get(f"/oncall/{rota.pk}/calendar.ics", secure=True)
    assert answer["Content-Type"] == "text/calendar; charset=utf-8"
    events = icalendar.Calendar.from_ical(answer.content).walk("VEVENT")
    titles = [str(event["summary"]) for event in events]
    assert "primary: Bob (override)" in titles
    assert len({str(event["uid"]) for event in events}) == len(events) > 20
    User.objects.filter(username="eve").update(email="")
    again = browser.get(f"/oncall/{rota.pk}/calendar.ics", secure=True).content.decode()
    assert "primary: NOBODY\\, Eve has no mail address" in again.replace("\r\n ", "")


@pytest.mark.usefixtures("plain_static_files")
def test_the_calendar_needs_a_token_whose_user_may_see_rotas(rota: Rota) -> None:
    person = User.objects.create_user("calendar")
    secret = tokens.create("calendar", person)
    address = f"/oncall/{rota.pk}/calendar.ics?token={secret}"
    assert Client().get(address, secure=True).status_code == 401
    person.groups.add(Group.objects.get(name="Viewers"))
    assert Client().get(address, secure=True).status_code == 200
    assert Client().get(address.replace("soc_", "soc_x"), secure=True).status_code == 401
    assert Client().get(f"/oncall/0/calendar.ics?token={secret}", secure=True).status_code == 404


def test_the_api_says_who_is_on_call(rota: Rota, clock: Clock) -> None:
    person = User.objects.create_user("program")
    person.groups.add(Group.objects.get(name="Viewers"))
    client = Client(headers={"Authorization": f"Bearer {tokens.create('program', person)}"})
    (item,) = client.get("/api/v1/oncall", secure=True).json()["items"]
    assert (item["name"], item["time_zone"], item["gaps"]) == ("primary", "UTC", [])
    assert (item["now"]["person"], item["now"]["email"]) == ("Eve", "eve@health.internal")
    assert item["following"]["person"] == "Bob"
    assert plan.read(clock.now)[0].at(clock.now).person == User.objects.get(username="eve")
