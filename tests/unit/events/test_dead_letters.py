"""Dead letters tell why, and are mended, replayed and discarded without the broker."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from soc.alerts import engine
from soc.alerts.conditions import Condition
from soc.alerts.models import OPEN, Alert
from soc.core.severity import Severity
from soc.events import dead, refused, tasks
from soc.events.models import BacklogAction, Bot, DeadLetter, Event, EventSource, StreamSettings
from winlogbeat import body, event, of_6

State = DeadLetter.State


def keep(content: bytes, reason: str = "it is not JSON") -> DeadLetter:
    dead.keep([dead.of(content, reason)])
    return DeadLetter.objects.latest("pk")


def dead_letters(*arguments: str) -> str:
    out = io.StringIO()
    call_command("events", "dead", *arguments, stdout=out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "it is not JSON"),
        ({"x-first-death-reason": "rejected"}, "it is not JSON"),
        (
            {"x-first-death-reason": "delivery_limit", "x-delivery-count": 6},
            "it was delivered 6 times: its workers died",
        ),
        ({"x-first-death-reason": "delivery_limit"}, "it was delivered 6 times"),
        ({"x-first-death-reason": "maxlen"}, "the queue was full"),
    ],
)
def test_the_broker_tells_why_a_message_is_dead(headers: dict[str, Any], words: str) -> None:
    assert dead.of_queue(b"{", headers, "logstash").reason.startswith(words)


def of_hosts(*hosts: str) -> None:
    dead.keep([dead.of(b'{"host": "%s"}' % host.encode(), "it has no time") for host in hosts])


def told() -> dict[str, dict[str, Condition]]:
    """Return the conditions by rule and subject."""
    found: dict[str, dict[str, Condition]] = {}
    for one in dead.conditions(timezone.now()):
        found.setdefault(one.rule, {})[one.subject] = one
    return found


@pytest.mark.django_db
def test_dead_letters_are_a_condition_of_each_host_with_the_reason() -> None:
    assert [one.severity for one in dead.conditions(timezone.now())] == [Severity.OK]
    of_hosts("dual", "other")
    of_hosts("dual")
    of_host = told()["refused"]
    assert of_host["dual"].severity == Severity.WARNING
    assert of_host["dual"].summary.startswith("2 messages of it refused since")
    assert "It has no time" in of_host["dual"].summary
    assert of_host["dual"].link == dead.PAGE
    assert set(of_host) == {"dual", "other"}
    # Each has been reported; nobody needs it twice.
    assert told()["dead-letters"]["event stream"].severity == Severity.OK
    assert dead.PAGE.startswith(reverse("admin:events_deadletter_changelist"))


@pytest.mark.django_db
def test_dead_letters_that_name_no_host_are_the_streams() -> None:
    for number in range(3):
        keep(b"{%d" % number)
    keep(b"[1]", "it has no time")
    stream = told()["dead-letters"]["event stream"]
    assert stream.severity == Severity.WARNING
    assert stream.summary.startswith("4 messages")
    assert "3 of an unknown host: It is not JSON" in stream.facts["Newest 4"]
    dead.discard(DeadLetter.objects.all(), "ann")
    assert told()["dead-letters"]["event stream"].severity == Severity.OK


@pytest.mark.django_db
def test_many_hosts_at_once_are_one_alert(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead, "MOST_HOSTS", 2)
    Bot.objects.create(host="robot")
    of_hosts("a")
    engine.report(list(dead.conditions(timezone.now())))
    of_hosts("robot", "b", "c")
    engine.report(list(dead.conditions(timezone.now())))
    states = dict(Alert.objects.filter(OPEN).values_list("subject__name", "state"))
    assert states.pop("event stream") == "firing"
    # What is made up has no alert of its own: it would have a row for each name.
    assert states == {"a": "firing", "robot": "suppressed"}


@pytest.mark.django_db
def test_of_more_hosts_than_are_distinguished_all_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(refused, "MOST_HOSTS", 2)
    of_hosts("a", "b", "b", "c")
    of_hosts("b")
    assert [(one.host, one.messages) for one in refused.hosts()] == [("b", 3), ("a", 1)]
    assert refused.messages() == 5


@pytest.mark.django_db
def test_a_host_that_is_refused_no_more_is_resolved() -> None:
    of_hosts("dual")
    engine.report(list(dead.conditions(timezone.now())))
    assert Alert.objects.get(OPEN).subject.name == "dual"
    dead.discard(DeadLetter.objects.all(), "ann")
    engine.report(list(dead.conditions(timezone.now())))
    assert not Alert.objects.filter(OPEN).exists()


@pytest.mark.django_db
def test_the_oldest_beyond_the_cap_are_deleted_and_it_is_written_down_of_whom(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dead, "MOST_WAITING", 2)
    monkeypatch.setattr(dead, "_PORTION", 3)
    of_hosts("dual", "other")
    kept = [keep(b"{%d" % number).pk for number in range(5)]
    assert told()["dead-letters"]["event stream"].severity == Severity.CRITICAL
    tasks.cap_dead_letters()
    assert set(DeadLetter.objects.values_list("pk", flat=True)) == set(kept[-2:])
    assert "5 dead letters of events are deleted" in caplog.text
    action = BacklogAction.objects.get()
    assert (action.queue, action.messages) == ("events.dead", 5)
    assert action.details == "3 of an unknown host, 1 of dual, 1 of other"
    tasks.cap_dead_letters()
    assert BacklogAction.objects.count() == 1


def test_what_can_be_read_was_refused_by_the_database() -> None:
    letter = dead.of_queue(body(of_6()), {"x-first-death-reason": "rejected"}, "logstash")
    assert letter.reason.startswith("it can be read, but the database refused it")


def test_what_workers_died_of_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def die(_: bytes) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(dead.shapes, "read", die)
    dead.of_queue(b"{", {"x-first-death-reason": "delivery_limit"}, "logstash")


def test_a_mistaken_routing_key_is_named_with_the_right_one() -> None:
    letter = dead.of_queue(body(of_6()), {}, "winlogbeat.prod")
    assert "the routing key 'winlogbeat.prod' and not 'logstash'" in letter.reason


def test_what_is_kept_of_a_large_message_is_said() -> None:
    letter = dead.of(b"{" * (dead.LONGEST_KEPT + 1), "it is too large")
    assert letter.reason == "it is too large; of its 1,500,001 bytes the first 1,500,000 are kept"


@pytest.mark.django_db
def test_a_letter_keeps_the_bytes_the_reason_and_the_host() -> None:
    content = body(of_6(event_id=None)) + b" "
    letter = keep(content, "its event id is missing")
    assert bytes(letter.body) == content
    assert (letter.reason, letter.host) == ("Its event id is missing", "robot-01")
    assert (letter.times, letter.state) == (1, State.WAITING)


@pytest.mark.django_db
def test_the_same_bytes_are_one_letter_that_counts() -> None:
    dead.keep([dead.of(b"{", "a"), dead.of(b"{", "a"), dead.of(b"[", "b")])
    dead.keep([dead.of(b"{", "a")])
    counted = {bytes(letter.body): letter.times for letter in DeadLetter.objects.all()}
    assert counted == {b"{": 3, b"[": 1}


@pytest.mark.django_db
def test_a_letter_that_comes_again_waits_again() -> None:
    letter = keep(b"{")
    dead.discard(DeadLetter.objects.all(), "ann")
    keep(b"{")
    letter.refresh_from_db()
    assert (letter.state, letter.times) == (State.WAITING, 2)


@pytest.mark.django_db
def test_bytes_that_are_no_text_are_kept_and_shown() -> None:
    letter = keep(b"\xff\x00{", "it is not UTF-8")
    assert letter.text == "\\xff\x00{"


def test_a_mended_letter_is_replayed_once(source: EventSource) -> None:
    letter = keep(body(of_6(event_id="x")))
    with pytest.raises(dead.CannotReplayEvent, match="its event id is 'x'"):
        dead.replay(letter, "ann")
    letter.edited = body(of_6(event_id=7)).decode()
    letter.save()
    dead.replay(letter, "ann")
    letter.refresh_from_db()
    assert (letter.state, letter.settled_by) == (State.REPLAYED, "ann")
    assert Event.objects.get().event_id == 7
    with pytest.raises(dead.CannotReplayEvent, match="replayed already"):
        dead.replay(letter, "ben")
    assert Event.objects.count() == 1


def test_what_would_only_be_dropped_is_not_replayed(source: EventSource) -> None:
    letter = keep(body(of_6()))
    EventSource.objects.update(allowed=False)
    with pytest.raises(
        dead.CannotReplayEvent, match="its source is not allowed: Test Robot in App"
    ):
        dead.replay(letter, "ann")
    letter.refresh_from_db()
    assert letter.state == State.WAITING


def test_the_command_lists_shows_mends_replays_and_discards(
    source: EventSource, tmp_path: Path
) -> None:
    first, second = keep(body(of_6(event_id="x"))), keep(b"{")
    listed = dead_letters("list").splitlines()
    assert [line.split()[0] for line in listed] == [str(second.pk), str(first.pk)]
    assert json.loads(dead_letters("show", str(first.pk)))["event_id"] == "x"
    (tmp_path / "mended.json").write_bytes(body(of_6()))
    dead_letters("edit", str(first.pk), str(tmp_path / "mended.json"))
    with pytest.raises(CommandError, match=f"1 could not be replayed:\n{second.pk}: it is not JS"):
        dead_letters("replay", "--all", "--by", "ann")
    assert Event.objects.count() == 1
    assert "1 discarded" in dead_letters("discard", str(second.pk))
    assert dead_letters("list") == ""
    assert len(dead_letters("list", "--state", "all").splitlines()) == 2
    with pytest.raises(CommandError, match="there is no dead letter 99999"):
        dead_letters("discard", "99999")
    with pytest.raises(CommandError, match="name dead letters, or say --all"):
        dead_letters("replay")


@pytest.mark.usefixtures("plain_static_files")
def test_a_person_reads_mends_and_replays_in_the_admin(
    source: EventSource, browser: Client
) -> None:
    letter = keep(b'{"<b>": 1}', "it is no Windows event")
    page = browser.get("/admin/events/deadletter/", secure=True).content.decode()
    assert "It is no Windows event" in page
    address = f"/admin/events/deadletter/{letter.pk}/change/"
    page = browser.get(address, secure=True).content.decode()
    assert "&lt;b&gt;" in page
    assert "<b>&quot;" not in page
    browser.post(
        address,
        {"edited": body(of_6()).decode(), "events_deadletter_replay_now": "on"},
        secure=True,
    )
    letter.refresh_from_db()
    assert (letter.state, letter.settled_by) == (State.REPLAYED, "ann")
    assert Event.objects.count() == 1


@pytest.mark.usefixtures("plain_static_files")
def test_many_are_replayed_and_discarded_from_the_list(
    source: EventSource, browser: Client
) -> None:
    good, bad = keep(body(of_6())), keep(b"{")
    form = {"action": "replay_selected", "_selected_action": [good.pk, bad.pk]}
    page = browser.post("/admin/events/deadletter/", form, secure=True, follow=True)
    text = page.content.decode()
    assert "Replayed: 1." in text
    assert "Not replayed: it is not JSON" in text
    form = {"action": "discard_selected", "_selected_action": [good.pk, bad.pk]}
    browser.post("/admin/events/deadletter/", form, secure=True)
    states = dict(DeadLetter.objects.values_list("pk", "state"))
    assert states == {good.pk: State.REPLAYED, bad.pk: State.DISCARDED}


@pytest.mark.usefixtures("plain_static_files")
def test_every_list_of_the_stream_opens(
    source: EventSource, browser: Client, ingest: Any, django_assert_max_num_queries: Any
) -> None:
    ingest.take([event(of_6(record_number=str(n), host={"name": f"r{n}"})) for n in range(30)])
    stored = Event.objects.first()
    for name in ("bot", "site", "eventsource", "event", "ingestcount", "backlogaction"):
        with django_assert_max_num_queries(20):
            assert browser.get(f"/admin/events/{name}/", secure=True).status_code == 200
    page = browser.get(f"/admin/events/event/{stored.pk}/change/", secure=True).content.decode()
    assert "Something happened" in page
    settings = StreamSettings.objects.get()
    page = browser.get(f"/admin/events/streamsettings/{settings.pk}/change/", secure=True)
    assert page.status_code == 200


@pytest.mark.usefixtures("plain_static_files")
def test_a_source_is_allowed_from_the_list(source: EventSource, browser: Client) -> None:
    other = EventSource.objects.create(provider="Other", channel="System", dropped=5)
    form = {"action": "allow", "_selected_action": [other.pk]}
    browser.post("/admin/events/eventsource/", form, secure=True)
    other.refresh_from_db()
    assert other.allowed
    assert other.dropped == 5
