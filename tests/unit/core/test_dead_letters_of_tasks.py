"""Dead letters of task queues are kept, shown, replayed once and discarded, with who did it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import celery
import pytest
from auditlog.models import LogEntry
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.test import Client
from django_celery_beat.models import PeriodicTask
from kombu import Connection

from soc.core import dead_letters, queues
from soc.core.models import DeadTask, QueueSample
from soc.runtime.queues import BY_NAME

pytestmark = pytest.mark.django_db

State = DeadTask.State
PAGE = "/admin/core/deadtask/"
TASK = "soc.core.tasks.keep_house"


@pytest.fixture
def broker() -> Iterator[Any]:
    """A broker in memory: its channels are kombu's own."""
    app = celery.Celery("other", broker="memory://", set_as_current=False)
    with app.connection_for_write() as connection:
        yield app
        connection.default_channel.queue_delete("shared.dead")
        connection.default_channel.queue_delete("email.dead")


def die(app: Any, queue: str, body: Any, **headers: Any) -> None:
    """Put a message where the broker puts one that it gave up."""
    connection: Connection
    with app.connection_for_write() as connection:
        connection.default_channel.queue_declare(queue)
        connection.Producer(serializer="json").publish(body, routing_key=queue, headers=headers)


def letter(body: str = "[[], {}, {}]", **values: Any) -> DeadTask:
    return DeadTask.objects.create(
        **{
            "queue": "shared",
            "task": TASK,
            "digest": str(DeadTask.objects.count()),
            "body": body,
            "reason": "r",
            "first_seen_at": "2026-01-01T00:00:00Z",
            "last_seen_at": "2026-01-01T00:00:00Z",
        }
        | values
    )


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command("deadletters", *arguments, stdout=out)
    return out.getvalue()


def requested() -> list[tuple[str, str, str]]:
    runs = PeriodicTask.objects.filter(name__startswith="now: dead letter")
    return list(runs.values_list("task", "args", "kwargs"))


def test_dead_letters_leave_the_broker_for_the_database(broker: Any) -> None:
    die(broker, "shared.dead", [[7], {"a": 1}, {}], id="x", task=TASK)
    die(broker, "email.dead", "?", **{"x-last-death-reason": "maxlen"})
    assert dead_letters.collect(broker, [BY_NAME["shared"], BY_NAME["email"]]) == 2
    assert dead_letters.collect(broker, [BY_NAME["shared"], BY_NAME["email"]]) == 0
    first = DeadTask.objects.get(queue="shared")
    assert (first.task, first.task_id, first.state) == (TASK, "x", State.WAITING)
    assert json.loads(first.body) == [[7], {"a": 1}, {}]
    assert DeadTask.objects.get(queue="email").reason == "The queue was full."


def test_a_letter_stays_in_the_broker_until_its_row_is_committed(
    broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As RabbitMQ does when a channel ends.
    monkeypatch.setattr("kombu.transport.memory.Channel.do_restore", True)
    die(broker, "shared.dead", [[], {}, {}], id="x", task=TASK)
    with monkeypatch.context() as patch:
        patch.setattr(dead_letters, "keep", lambda *_: (_ for _ in ()).throw(OperationalError()))
        with pytest.raises(OperationalError):
            dead_letters.collect(broker, [BY_NAME["shared"]])
    assert dead_letters.collect(broker, [BY_NAME["shared"]]) == 1


def test_a_replayed_letter_that_dies_again_waits_again(broker: Any) -> None:
    for _ in range(2):
        die(broker, "shared.dead", [[], {}, {}], id="x", task=TASK)
        dead_letters.collect(broker, [BY_NAME["shared"]])
        DeadTask.objects.filter(times=1).update(state=State.REPLAYED)
    assert DeadTask.objects.values_list("times", "state").get() == (2, State.WAITING)


def test_the_broker_is_asked_only_when_it_has_dead_letters(
    broker: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.EMBEDDED = False
    states = {name: queues.State(0, 1) for name in BY_NAME}
    monkeypatch.setattr(queues, "_of_management_api", lambda: states)
    asked: list[list[str]] = []

    def collect(_: Any, found: Any) -> None:
        asked.append([queue.name for queue in found])
        letter(queue="email")

    monkeypatch.setattr(dead_letters, "collect", collect)
    queues.sample(broker)
    assert asked == []
    # The stream's own worker takes the stream's.
    states |= {"email.dead": queues.State(1, 0), "events.dead": queues.State(2, 1)}
    queues.sample(broker)
    assert asked == [["email"]]
    latest = QueueSample.objects.order_by("-pk")[: len(BY_NAME)]
    assert {s.queue: s.dead for s in latest if s.dead} == {"email": 1, "events": 2}


def test_a_letter_is_replayed_once_with_its_arguments() -> None:
    one = letter('[[], {"a": 1}, {"callbacks": null}]')
    dead_letters.replay(one, "ann")
    assert requested() == [(TASK, "[]", '{"a": 1}')]
    with pytest.raises(dead_letters.CannotReplay, match="it has been replayed already"):
        dead_letters.replay(one, "ben")
    assert len(requested()) == 1
    one.refresh_from_db()
    assert (one.state, one.settled_by) == (State.REPLAYED, "ann")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"task": "soc.core.tasks.gone"}, "no task is named"),
        ({"task": ""}, "no task is named ''"),
        ({"queue": "email"}, "is no task of the queue email"),
        ({"body": "{"}, "cannot be decoded"),
        ({"body": "[1]"}, "cannot be decoded"),
        ({"body": "[1, {}, {}]"}, "no list and no object"),
    ],
)
def test_what_no_worker_would_take_is_not_replayed(values: dict[str, str], words: str) -> None:
    one = letter(**values)
    with pytest.raises(dead_letters.CannotReplay, match=words):
        dead_letters.replay(one, "ann")
    one.refresh_from_db()
    assert one.state == State.WAITING
    assert requested() == []


def test_the_command_lists_shows_replays_and_discards() -> None:
    good, bad, other = letter(), letter(task="soc.x"), letter(queue="email", task="")
    assert [line.split()[0] for line in run("list").splitlines()] == [
        str(one.pk) for one in (other, bad, good)
    ]
    assert "[[], {}, {}]" in run("show", str(good.pk))
    with pytest.raises(CommandError, match=f"1 could not be replayed:\n{bad.pk}: no task is named"):
        run("replay", "--queue", "shared", "--by", "ann")
    assert "1 discarded" in run("discard", str(bad.pk), "--by", "ann", "--reason", "an old task")
    assert "discarded by ann" in run("show", str(bad.pk))
    assert "an old task" in run("show", str(bad.pk))
    assert run("discard", "--all") == "1 discarded\n"
    assert run("list") == ""
    with pytest.raises(CommandError, match="there is no dead letter 99999"):
        run("discard", "99999")
    with pytest.raises(CommandError, match="name dead letters, a --queue, or --all"):
        run("replay")


def test_a_person_replays_and_discards_on_the_page_and_it_is_in_the_audit_log(
    browser: Client,
) -> None:
    first, second = letter("[[], {}, {}] <b>"), letter()
    assert "&lt;b&gt;" in browser.get(f"{PAGE}{first.pk}/change/", secure=True).content.decode()
    for action, row in (("discard", first), ("replay", second)):
        form = {"action": action, "_selected_action": [row.pk]}
        browser.post(PAGE, form, secure=True)
    states = dict(DeadTask.objects.values_list("pk", "state"))
    assert states == {first.pk: State.DISCARDED, second.pk: State.REPLAYED}
    events = [
        entry.additional_data["event"]
        for entry in LogEntry.objects.filter(content_type__model="deadtask").order_by("pk")
    ]
    assert events == ["Action discard", "Action replay"]
