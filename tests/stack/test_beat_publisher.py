"""What beat's publisher makes of the real broker's answers, as beat's own user."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from beats import ANY_KEY_OF_BEAT, THE_SITES_DEFINITIONS
from harness import Stack, run
from soc.runtime.queues import TASK_EXCHANGE

FULL = "beat-full"
"""A queue that takes one message and refuses the next."""

CODE = f"""
import json, socket, time
import django
django.setup()
from soc.beat.plan import Entry, Run
from soc.beat.publish import Publisher
from soc.beat.rows import Message
from soc.beat.timing import Clocked
from soc.runtime.celery import app

app.loader.import_default_modules()
publisher = Publisher(app, 2, True)

def publish(key, count=1):
    while not publisher.ready():
        time.sleep(0.05)
    send(key, count)

def send(key, count):
    message = Message("of a test", "soc.core.tasks.keep_house", "[]", "{{}}", None,
                      "{TASK_EXCHANGE}", key, "{{}}", None, None, expire_seconds=60)
    entry = Entry(1, Clocked(0), created=0, message=message)
    assert publisher.send([Run(entry, due, None) for due in range(count)]) == ()

def answers():
    end = time.monotonic() + 10
    while publisher.waits and time.monotonic() < end:
        publisher._read(0.1)
    return [result.problem for result in publisher.results()]

answer = {{}}
publish("{FULL}")
answer["taken"] = answers()
publish("{FULL}", 3)
answer["refused"] = answers()
publish("nowhere")
answer["returned"] = answers()
# Below TLS, as a network does it, and before anybody can have noticed.
socket.socket.shutdown(publisher._wire.transport.sock, socket.SHUT_WR)
send("{FULL}", 2)
answer["lost"] = answers()
publish("nowhere")
answer["afterwards"] = answers()
publisher.close(1)
print(json.dumps(answer))
"""


@pytest.fixture
def full_queue(stack: Stack) -> Iterator[None]:
    """A queue of one message on the exchange of the tasks."""
    limits = {"x-max-length": 1, "x-overflow": "reject-publish"}
    definitions = {
        "queues": [
            {"name": FULL, "vhost": "/", "durable": True, "auto_delete": False,
             "arguments": {"x-queue-type": "classic"} | limits},
        ],
        "bindings": [
            {"source": TASK_EXCHANGE, "vhost": "/", "destination": FULL,
             "destination_type": "queue", "routing_key": FULL, "arguments": {}},
        ],
        "topic_permissions": [ANY_KEY_OF_BEAT],
    }  # fmt: skip
    stack.exec(
        "rabbitmq", "sh", "-c",
        "cat >/tmp/full.json && rabbitmqctl -q import_definitions /tmp/full.json",
        stdin=json.dumps(definitions),
    )  # fmt: skip
    yield
    for command in (("delete_queue", FULL), THE_SITES_DEFINITIONS):
        stack.exec("rabbitmq", "rabbitmqctl", "-q", *command)


def as_beat(stack: Stack, code: str) -> Any:
    """Run code beside the site's beat, with its identity but not its share of the CPU."""
    printed = run(
        "docker", "run", "--rm", "--interactive", f"--name={stack.project}-publisher",
        f"--network={stack.project}_data", f"--env-file={stack.env_file}",
        "--env=SOC_SERVICE=beat", "--env=DJANGO_SETTINGS_MODULE=soc.settings",
        f"--volume={stack.env_file.with_suffix('')}/beat:/run/site:ro",
        stack.inspect("beat")["Config"]["Image"], "python3", "-",
        stdin=code, stderr=subprocess.PIPE,
    )  # fmt: skip
    return json.loads(printed.strip().splitlines()[-1])


@pytest.mark.usefixtures("full_queue")
def test_every_answer_of_the_broker_is_told_of_the_right_run(stack: Stack) -> None:
    answer = as_beat(stack, CODE)
    assert answer["taken"] == [""]
    assert answer["refused"] == ["the broker refused the message"] * 3
    assert [problem[:18] for problem in answer["returned"]] == ["no queue takes it:"]
    assert [problem[:14] for problem in answer["lost"]] == ["not confirmed:"] * 2
    assert [problem[:18] for problem in answer["afterwards"]] == ["no queue takes it:"]


TWO_CONNECTIONS = """
import json, socket, ssl, struct, threading
import django
django.setup()

serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
serving.load_cert_chain("/run/site/cert.pem", "/run/site/key.pem")
asking = ssl.create_default_context(cafile="/run/site/ca.pem")

def connect():
    ends = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accept = lambda: ends.append(serving.wrap_socket(listener.accept()[0], server_side=True))
        accepting = threading.Thread(target=accept)
        accepting.start()
        near = socket.create_connection(listener.getsockname())
        client = asking.wrap_socket(near, server_hostname="beat")
        accepting.join()
    ends[0].sendall(b"x")
    client.recv(1)
    return client, ends[0]

def failure(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        return type(error).__name__

answers = []
for use in ("send", "unwrap"):
    (good, peer), (broken, end) = connect(), connect()
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()
    good.setblocking(False)
    arguments = [b"x"] if use == "send" else []
    answers += [failure(getattr(broken, use), *arguments), failure(good.recv, 1)]
print(json.dumps(answers))
"""


def test_a_connection_that_was_reset_costs_no_other_one_of_the_thread(stack: Stack) -> None:
    assert as_beat(stack, TWO_CONNECTIONS) == ["ConnectionResetError", "SSLWantReadError"] * 2
