"""Each event is stored once, with what is read out of it, or refused; the rest goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from django.db import DataError, IntegrityError, OperationalError, connection, models
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_shapes import BODIES

from mailing import Clock
from soc.events import ingest as module
from soc.events import readers, shapes
from soc.events.ingest import Ingest, Taken
from soc.events.models import (
    Bot,
    BotSeen,
    Derived,
    Event,
    EventSource,
    IngestCount,
    StreamSettings,
)
from winlogbeat import CHANNEL, PROVIDER, body, of_6, of_8, stamp


class Note(Derived):
    """What a reader of the tests makes of an event."""

    text = models.CharField(max_length=20)

    class Meta:
        app_label = "tests_events"


@pytest.fixture
def notes(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that makes a note of every event whose message begins with its name."""

    def read(arrival: readers.Arrival) -> Sequence[Derived]:
        if arrival.event.message == "note: bad":
            raise ValueError("it cannot be noted")
        if not arrival.event.message.startswith("note: "):
            return []
        return [arrival.row(Note, text=arrival.event.message[6:])]

    monkeypatch.setattr(readers, "_readers", {})
    readers.register("note", Note, read)
    # The schema editor of SQLite works outside of transactions only, and the test is one.
    with connection.cursor() as cursor:
        cursor.execute(
            f"CREATE TABLE {Note._meta.db_table} (id integer PRIMARY KEY, digest blob UNIQUE,"
            "bot_id bigint, at datetime, received_at datetime, stale bool, text varchar(20))"
        )


MINUTE = timedelta(minutes=1)


def take(ingest: Ingest, messages: Sequence[bytes]) -> Taken:
    return ingest.take([part.event for message in messages for part in shapes.read_all(message)])


def seen(kind: str = "event") -> dict[str, Any]:
    return dict(BotSeen.objects.filter(kind=kind).values_list("bot__host", "at"))


def counts() -> dict[str, int]:
    """The counts of all minutes, without the zeros."""
    rows = IngestCount.objects.values(*module.COUNTS)
    sums = {name: sum(row[name] for row in rows) for name in module.COUNTS}
    return {name: number for name, number in sums.items() if number}


@pytest.mark.django_db
def test_events_of_both_shapes_are_stored(ingest: Ingest) -> None:
    taken = take(ingest, [body(of_6()), body(of_8(host={"name": "robot-02"}))])
    assert taken.refusals == []
    first, second = Event.objects.select_related("bot", "source").order_by("bot__host")
    assert (first.bot.host, second.bot.host) == ("robot-01", "robot-02")
    assert str(first.source) == f"{PROVIDER} in {CHANNEL}"
    assert (first.record_id, first.event_id, first.level) == (4711, 1000, "Information")
    assert json.loads(first.raw)["message"] == "Something happened"
    assert not first.stale
    assert timezone.now() - first.at < timedelta(seconds=60)
    assert counts() == {"stored": 2}


@pytest.mark.django_db
def test_an_event_that_comes_again_is_stored_once(ingest: Ingest) -> None:
    message = body(of_6())
    take(ingest, [message, message])
    take(ingest, [message])
    assert Event.objects.count() == 1
    assert counts() == {"stored": 1, "duplicates": 2}


@pytest.mark.django_db
def test_a_robot_is_one_whatever_the_letters_of_its_name(ingest: Ingest) -> None:
    Bot.objects.create(host=" ROBOT-01 ")
    take(ingest, [body(of_6()), body(of_8(host={"name": "Robot-01", "ip": ["192.0.2.7"]}))])
    assert list(Bot.objects.values_list("host", "addresses")) == [("robot-01", ["192.0.2.7"])]


@pytest.mark.django_db
def test_a_new_robot_has_no_site(ingest: Ingest) -> None:
    take(ingest, [body(of_8())])
    bot = Bot.objects.get()
    assert (bot.host, bot.site, bot.enabled) == ("robot-01", None, True)
    assert bot.addresses == ["192.0.2.1"]


@pytest.mark.django_db
def test_events_of_other_sources_are_counted_and_dropped_until_they_are_allowed() -> None:
    ingest = Ingest("test")
    messages = [body(of_6(record_number=str(n))) for n in range(3)]
    take(ingest, messages[:2])
    source = EventSource.objects.get(provider=PROVIDER)
    assert (source.allowed, source.dropped) == (False, 2)
    assert source.dropped_at is not None
    assert not Event.objects.exists()
    assert not Bot.objects.exists()
    EventSource.objects.update(allowed=True)
    ingest._memory.forget()
    take(ingest, messages[2:])
    assert Event.objects.count() == 1
    assert counts() == {"stored": 1, "dropped": 2}


@pytest.mark.django_db
def test_a_sign_of_life_never_goes_back(ingest: Ingest) -> None:
    now = timezone.now()
    times = [now - timedelta(minutes=minutes) for minutes in (5, 1, 3)]
    for number, at in enumerate(times):
        take(ingest, [body(of_6(**{"@timestamp": stamp(at), "record_number": str(number)}))])
    assert seen() == {"robot-01": times[1]}


@pytest.mark.django_db
def test_a_clock_that_is_ahead_proves_no_life_in_the_future(ingest: Ingest) -> None:
    ahead = timezone.now() + timedelta(hours=5)
    take(ingest, [body(of_6(**{"@timestamp": stamp(ahead)}))])
    assert Event.objects.get().at == ahead
    assert seen()["robot-01"] <= timezone.now()


@pytest.mark.django_db
def test_a_stale_event_is_stored_and_proves_nothing(ingest: Ingest, notes: None) -> None:
    old = timezone.now() - timedelta(minutes=31)
    take(ingest, [body(of_6(**{"@timestamp": stamp(old)}, message="note: old"))])
    assert Event.objects.get().stale
    assert Note.objects.get().stale
    assert seen() == seen("note") == {"robot-01": None}
    assert all(timezone.now() - one.arrived_at < MINUTE for one in BotSeen.objects.all())
    assert counts() == {"stored": 1, "stale": 1}


@pytest.mark.django_db
def test_an_administrator_says_what_is_stale(ingest: Ingest) -> None:
    StreamSettings.objects.update(stale_minutes=60)
    old = timezone.now() - timedelta(minutes=31)
    take(ingest, [body(of_6(**{"@timestamp": stamp(old)}))])
    assert seen() == {"robot-01": old}


@pytest.mark.django_db
def test_a_backlog_is_taken_in_quietly_or_dropped_as_asked(ingest: Ingest) -> None:
    now = timezone.now()
    StreamSettings.objects.update(
        quiet_before=now - timedelta(minutes=5), expired_before=now - timedelta(minutes=10)
    )
    times = [now - timedelta(minutes=minutes) for minutes in (1, 7, 15)]
    take(
        ingest,
        [
            body(of_6(**{"@timestamp": stamp(at), "record_number": str(number)}))
            for number, at in enumerate(times)
        ],
    )
    stored = dict(Event.objects.values_list("record_id", "stale"))
    assert stored == {0: False, 1: True}
    assert counts() == {"stored": 2, "stale": 1, "expired": 1}


@pytest.mark.django_db
def test_what_applications_read_is_stored_with_the_event(ingest: Ingest, notes: None) -> None:
    messages = [body(of_6(message="note: hello")), body(of_6(record_number="2"))]
    take(ingest, messages)
    take(ingest, messages)
    note = Note.objects.get()
    assert (note.text, note.bot.host, note.stale) == ("hello", "robot-01", False)
    assert bytes(note.digest) == bytes(Event.objects.get(record_id=4711).digest)
    assert seen("note") == {"robot-01": note.at}


@pytest.mark.django_db
def test_a_reader_that_fails_costs_no_event(ingest: Ingest, notes: None) -> None:
    take(ingest, [body(of_6(message="note: bad")), body(of_6(record_number="2"))])
    problems = dict(Event.objects.values_list("record_id", "problem"))
    assert problems == {4711: "note: ValueError: it cannot be noted", 2: ""}
    assert counts() == {"stored": 2, "problems": 1}


@pytest.mark.django_db
def test_a_row_that_the_database_refuses_costs_no_other(
    ingest: Ingest, notes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert = Note._default_manager.bulk_create

    def refuse(rows: list[Note], **options: Any) -> list[Note]:
        if any(row.text == "poison" for row in rows):
            raise DataError("Data too long for column 'text'")
        return insert(rows, **options)

    monkeypatch.setattr(Note._default_manager, "bulk_create", refuse)
    texts = ("one", "poison", "three")
    take(
        ingest,
        [body(of_6(message=f"note: {text}", record_number=str(n))) for n, text in enumerate(texts)],
    )
    assert sorted(Note.objects.values_list("text", flat=True)) == ["one", "three"]
    problems = dict(Event.objects.values_list("record_id", "problem"))
    assert problems[0] == problems[2] == ""
    assert "Data too long" in problems[1]


@pytest.mark.django_db
def test_malformed_messages_are_refused_each_with_its_place(ingest: Ingest) -> None:
    good = [body(of_6(record_number=str(n))) for n in range(3)]
    taken = take(ingest, [good[0], b"{", good[1], body([]), good[2]])
    assert [refusal.place for refusal in taken.refusals] == [1, 3]
    assert taken.refusals[1].reason == "it is a list, not an object"
    assert Event.objects.count() == 3
    assert counts() == {"stored": 3, "refused": 2}


@pytest.mark.django_db
def test_a_batch_is_split_until_the_culprit_is_alone(
    ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert = module.insert

    def refuse(table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> int:
        if any('"poison"' in row[columns.index("raw")] for row in rows):
            raise OperationalError(1366, "Incorrect string value")
        return insert(table, columns, rows)

    monkeypatch.setattr(module, "insert", refuse)
    messages = [body(of_6(record_number=str(n))) for n in range(50)]
    messages[17] = body(of_6(record_number="17", message="poison"))
    taken = take(ingest, messages)
    assert [refusal.place for refusal in taken.refusals] == [17]
    assert "Incorrect string value" in taken.refusals[0].reason
    assert Event.objects.count() == 49
    assert counts() == {"stored": 49, "refused": 1}


@pytest.mark.django_db
@pytest.mark.parametrize("code", [2006, 2013, 1205, 1213, 1045, 1146, 1021])
def test_trouble_of_the_database_itself_blames_no_message(
    ingest: Ingest, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    tries = []

    def fail(*_: object) -> int:
        tries.append(1)
        raise OperationalError(code, "away")

    monkeypatch.setattr(module, "insert", fail)
    with pytest.raises(OperationalError):
        take(ingest, [body(of_6(record_number=str(n))) for n in range(10)])
    assert len(tries) == 1
    assert not Event.objects.exists()
    assert not IngestCount.objects.exists()


@pytest.mark.django_db
def test_a_batch_is_stored_whole_or_not_at_all(
    ingest: Ingest, notes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_count", lambda *_: (_ for _ in ()).throw(OperationalError(2013)))
    with pytest.raises(OperationalError):
        take(ingest, [body(of_6(message="note: hello"))])
    assert not Event.objects.exists()
    assert not Note.objects.exists()
    assert not BotSeen.objects.exists()
    monkeypatch.undo()


@pytest.mark.django_db
def test_a_robot_that_was_deleted_comes_back(
    ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(ingest, [body(of_6())])
    Bot.objects.all().delete()
    note = module._note_signs_of_life

    def refuse(batch: Any) -> None:
        # SQLite looks at foreign keys when a transaction ends, MariaDB at once.
        known = set(Bot.objects.values_list("pk", flat=True))
        if any(bot not in known for bot, _ in batch.seen):
            raise IntegrityError(1452, "Cannot add or update a child row")
        note(batch)

    monkeypatch.setattr(module, "_note_signs_of_life", refuse)
    taken = take(ingest, [body(of_6(record_number=str(n))) for n in range(4)])
    assert taken.refusals == []
    assert list(seen()) == ["robot-01"]


@pytest.mark.django_db
def test_known_robots_and_sources_are_not_asked_for_again(
    ingest: Ingest, django_assert_num_queries: Any
) -> None:
    take(ingest, [body(of_6())])
    messages = [body(of_6(record_number=str(n))) for n in range(100)]
    # Two savepoints of the transaction that the test is, and one statement for each table.
    with django_assert_num_queries(6):
        take(ingest, messages)


@pytest.mark.django_db
def test_settings_are_read_again_after_a_while(ingest: Ingest, clock: Clock) -> None:
    take(ingest, [body(of_6())])
    StreamSettings.objects.update(stale_minutes=1)
    ingest._memory._until = 0.0
    take(
        ingest,
        [body(of_6(**{"@timestamp": stamp(clock.now - timedelta(minutes=2))}, record_number="2"))],
    )
    assert Event.objects.get(record_id=2).stale


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(batch=st.lists(BODIES, max_size=6))
@pytest.mark.django_db
def test_whatever_comes_is_stored_or_refused_and_never_stops_the_rest(
    ingest: Ingest, batch: list[bytes]
) -> None:
    before = Event.objects.count()
    number = IngestCount.objects.count() and counts().get("stored", 0) + 1
    good = body(of_6(record_number=str(number), host={"name": f"robot-{number}"}))
    events = sum(len(shapes.read_all(message)) for message in batch)
    taken = take(ingest, [*batch, good])
    refused = {refusal.place for refusal in taken.refusals}
    assert events not in refused
    assert all(refusal.reason for refusal in taken.refusals)
    assert Event.objects.count() == before + taken.counts.stored
    assert taken.counts.stored >= 1
    accounted = taken.counts.stored + taken.counts.duplicates + taken.counts.dropped
    assert accounted + len(refused) == events + 1
