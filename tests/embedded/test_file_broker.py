"""The broker of files loses and doubles nothing while several processes use it."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection, Exchange, Queue
from kombu.transport.filesystem import Channel as KombuChannel

PRODUCERS, CONSUMERS, EACH = 2, 2, 1_000
QUEUE = Queue("work", Exchange("tasks", type="topic"), routing_key="work")
# A fork of pytest would inherit its open connections.
context = multiprocessing.get_context("spawn")


def connect(folder: Path) -> Connection:
    options = {
        "data_folder_in": str(folder / "messages"),
        "data_folder_out": str(folder / "messages"),
        "control_folder": str(folder / "control"),
        # A thousand times as eager as in the stack, to meet the races often.
        "polling_interval": 0.001,
    }
    transport = "soc.runtime.file_broker:FileTransport"
    return Connection("localhost", transport=transport, transport_options=options)


def produce(folder: Path, producer: int) -> None:
    with connect(folder) as connection:
        publish = connection.Producer().publish
        for number in range(EACH):
            publish(
                [producer, number], exchange=QUEUE.exchange, routing_key="work", declare=[QUEUE]
            )


def consume(folder: Path, seen: Any, done: Any) -> None:
    tempfile.tempdir = str(folder / "tmp")
    taken: list[tuple[int, int]] = []

    def take(body: list[int], message: Any) -> None:
        taken.append((body[0], body[1]))
        message.ack()

    with connect(folder) as connection, connection.Consumer(QUEUE, callbacks=[take]):
        while True:
            finished = done.is_set()
            try:
                connection.drain_events(timeout=0.5)
            except TimeoutError:
                if finished:
                    break
    seen.put(taken)


def bind(folder: Path, name: str, barrier: Any) -> None:
    with connect(folder) as connection:
        channel = connection.default_channel
        barrier.wait()
        Queue(name, QUEUE.exchange, routing_key=name)(channel).declare()


def run(processes: list[Any]) -> None:
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "messages").mkdir()
    return tmp_path


def test_every_message_is_taken_once(folder: Path) -> None:
    seen, done = context.Queue(), context.Event()
    consumers = [
        context.Process(target=consume, args=(folder, seen, done)) for _ in range(CONSUMERS)
    ]
    for process in consumers:
        process.start()
    run([context.Process(target=produce, args=(folder, number)) for number in range(PRODUCERS)])
    done.set()
    taken = Counter(message for _ in consumers for message in seen.get(timeout=60))
    assert len(taken) == PRODUCERS * EACH
    assert set(taken.values()) == {1}


def test_workers_that_start_together_all_bind_their_queues(folder: Path) -> None:
    names = [f"queue{number}" for number in range(6)]
    barrier = context.Barrier(len(names))
    run([context.Process(target=bind, args=(folder, name, barrier)) for name in names])
    with connect(folder) as connection:
        bound = {row.queue for row in connection.default_channel.get_table("tasks")}
    assert bound == set(names)


def test_a_draft_is_no_message(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published: list[str] = []
    rename = Path.rename

    def rename_after_a_look(self: Path, target: Path) -> Path:
        with connect(folder) as reader:
            assert reader.default_channel.basic_get("work") is None
        published.append(target.name)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", rename_after_a_look)
    with connect(folder) as connection:
        connection.Producer().publish({}, routing_key="work", exchange="")
        assert len(published) == 1
        assert connection.default_channel.basic_get("work") is not None


def test_kombus_names_are_the_ones_that_we_replace() -> None:
    """A kombu that renames what our channel overrides would bring its races back unseen."""
    assert {"_put", "_queue_bind", "_exchange_file"} <= vars(KombuChannel).keys()
