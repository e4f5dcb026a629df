"""What each shipper has sent, what became of it, and the pages that show it."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.db import OperationalError
from django.test import Client
from django.utils import timezone

from mailing import Clock
from soc.events import shapes, shippers
from soc.events.ingest import Ingest
from soc.events.models import Event, EventSource, Shipper, ShipperCount, ShipperMessage
from soc.events.shippers import ShipperLog
from winlogbeat import body, of_8, stamp

pytestmark = pytest.mark.django_db

Ship = Callable[..., None]


@pytest.fixture
def ship(source: EventSource, monkeypatch: pytest.MonkeyPatch) -> Ship:
    """Take messages in as the worker does, through the exchange of a shipper."""
    log, ingest = ShipperLog(), Ingest("tests")
    monkeypatch.setattr(shippers, "SHOWN_EVERY", 0)

    def take(name: str, *bodies: bytes) -> None:
        parts = [part for text in bodies for part in shapes.read_all(text)]
        refusals = ingest.take([part.event for part in parts]).refusals
        log.note([f"shipper.{name}"] * len(parts), parts, refusals)

    return take


def rows() -> dict[str, shippers.ShipperRow]:
    return {row.shipper.name: row for row in shippers.read(timezone.now())}


def outcomes(name: str) -> list[str]:
    found = ShipperMessage.objects.filter(shipper__name=name).order_by("pk")
    return list(found.values_list("outcome", flat=True))


def late(minutes: float) -> str:
    return stamp(timezone.now() - timedelta(minutes=minutes))


def test_each_message_is_shown_as_it_came_with_what_became_of_it(ship: Ship) -> None:
    good = body(of_8(host={"name": "dual"}))
    stranger = body(of_8({"provider_name": "Stranger"}))
    ship("one", good, b"{", stranger, b'[{"n": 1}, {"n": 2}]')
    told = outcomes("one")
    assert told[0].startswith("accepted: event 1000 of dual, ")
    assert told[1].startswith("refused: it is not JSON")
    assert told[2] == "read, but dropped: the source Stranger in Application is not allowed"
    assert len(told) == 5
    assert ShipperMessage.objects.order_by("pk")[0].text == good.decode()
    assert [m.accepted for m in ShipperMessage.objects.order_by("pk")] == [True, *[False] * 4]


def test_a_shipper_is_known_by_its_exchange_and_not_by_what_its_messages_say(ship: Ship) -> None:
    ship("one", body(of_8(agent={"name": "two", "type": "winlogbeat"})))
    assert list(rows()) == ["one"]


def test_of_the_shared_user_it_is_the_exchange_itself() -> None:
    assert shippers.name_of("logstash") == "logstash"


def test_only_the_last_are_kept_and_of_each_the_first_bytes(ship: Ship) -> None:
    ship("one", *(b"{%d" % number for number in range(50)))
    ship("one", b"{" + b"x" * 10_000)
    ship("two", b"{")
    kept = ShipperMessage.objects.filter(shipper__name="one")
    assert kept.count() == shippers.MOST_KEPT
    newest = kept.latest("pk")
    assert (len(bytes(newest.body)), newest.size) == (shippers.LONGEST_KEPT, 10_001)
    assert ShipperMessage.objects.filter(shipper__name="two").count() == 1


def test_all_are_counted_though_not_all_are_kept(
    ship: Ship, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shippers, "SHOWN_EVERY", 60)
    for number in range(3):
        ship("one", b"{", body(of_8({"record_id": number + 1})))
    assert len(outcomes("one")) == 2
    row = rows()["one"]
    assert (row.messages, row.refused) == (6, 3)
    assert row.rate == pytest.approx(6 / 300)


def test_rate_refusals_and_skew_are_listed(ship: Ship, clock: Clock) -> None:
    for number in range(3):
        ship("slow", body(of_8({"record_id": number + 1}, **{"@timestamp": late(7)})))
        ship("right", body(of_8({"record_id": number + 9})))
        clock.move(minutes=1)
    Shipper.objects.create(name="quiet", kind="logstash")
    found = rows()
    assert found["slow"].skew == "7 min slow"
    assert (found["right"].label, found["right"].tone) == ("in order", "ok")
    assert (found["quiet"].label, found["quiet"].last) == ("never heard of", None)
    clock.move(days=1, hours=1)
    assert (rows()["slow"].messages, rows()["slow"].skew) == (0, "")


def test_the_promptest_event_of_a_minute_is_the_measure(ship: Ship, clock: Clock) -> None:
    clock.now = clock.now.replace(second=10)
    ship("one", body(of_8(**{"@timestamp": late(20)})))
    ship("one", body(of_8({"record_id": 2}, **{"@timestamp": late(0)})), b"{")
    ship("one", body(of_8({"record_id": 3}, **{"@timestamp": late(3)})))
    (count,) = ShipperCount.objects.all()
    assert count.delay == pytest.approx(0, abs=1)
    assert count.messages == 4


def test_what_cannot_be_noted_stops_no_event(ship: Ship, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OperationalError(1205, "lock wait timeout")

    monkeypatch.setattr(shippers, "_count", fails)
    ship("one", body(of_8()))
    assert Event.objects.count() == 1
    assert outcomes("one") == []


def test_the_pages_show_them(ship: Ship, browser: Client) -> None:
    ship("one", body(of_8(message="<b>bold</b>")), b"{")
    page = browser.get("/shippers/", secure=True).content.decode()
    assert "1 shipper<" in page
    assert "messages refused" in page
    address = re.search(r'href="(/shippers/\d+/)"', page)
    assert address
    page = browser.get(address[1], secure=True).content.decode()
    assert "Refused: it is not JSON" in page
    assert "&lt;b&gt;bold" in page
    assert browser.get("/shippers/999/", secure=True).status_code == 404


def test_the_cost_of_the_list_does_not_depend_on_the_shippers(
    ship: Ship, browser: Client, django_assert_num_queries: Callable[[int], object]
) -> None:
    ship("one", b"{")
    browser.get("/shippers/", secure=True)
    for number in range(9):
        with django_assert_num_queries(6):
            browser.get("/shippers/live/", secure=True)
        ship(f"s{number}", b"{", body(of_8()))


def test_without_the_right_to_see_events_there_is_no_page(client: Client) -> None:
    assert client.get("/shippers/", secure=True).status_code == 302


def test_the_command_notes_what_make_shipper_has_done() -> None:
    def events(*arguments: str) -> None:
        call_command("events", "shipper", *arguments, stdout=io.StringIO())

    events("add", "one", "logstash")
    assert rows()["one"].label == "never heard of"
    events("revoke", "one")
    assert rows()["one"].label == "revoked"
    events("add", "one", "amqplib")
    row = rows()["one"]
    assert (row.label, row.shipper.kind) == ("never heard of", "amqplib")
