"""The event stream under fire: nothing good is lost or doubled, nothing old alarms."""

from __future__ import annotations

import json
import re
import threading
import time
from typing import Any

import pytest

from harness import Stack, run, wait_for
from soc.runtime.queues import BY_NAME
from winlogbeat import body, of_6

EVENTS = 20_000
FAULTS = "duplicate=0.1,malformed=0.05,stale=0.05"
KILLS = 5
DRAINED = 10_000

STATE = """
from django.db.models import Count, Sum
from soc.events.models import DeadLetter, Event, IngestCount
letters = DeadLetter.objects.filter(state="waiting")
answer = {
    "events": Event.objects.count(),
    "distinct": Event.objects.values("digest").distinct().count(),
    "stale": Event.objects.filter(stale=True).count(),
    "letters": letters.aggregate(n=Sum("times"))["n"] or 0,
    "distinct letters": letters.count(),
    "duplicates": IngestCount.objects.aggregate(n=Sum("duplicates"))["n"] or 0,
}
"""


def simulate(stack: Stack, *options: str) -> dict[str, int]:
    """Run the simulator as Logstash's user until it is done; return what it has published."""
    identity = stack.folder / "env" / stack.site / "logstash"
    printed = stack.compose(
        "run", "--rm", "--no-deps", "-T", f"--volume={identity}:/run/logstash:ro",
        "worker-events", "python3", "manage.py", "events", "simulate",
        "--identity=/run/logstash", *options,
    )  # fmt: skip
    # What it tells of its progress is mixed in.
    return json.loads(re.search(r'\{"good".*\}', printed)[0])


class Publishing(threading.Thread):
    """A simulator that runs beside the test."""

    def __init__(self, stack: Stack, *options: str) -> None:
        super().__init__()
        self.published: dict[str, int] = {}
        self._arguments = (stack, *options)

    def run(self) -> None:
        self.published = simulate(*self._arguments)


def state(stack: Stack) -> dict[str, Any]:
    return stack.data(STATE)


def waiting(stack: Stack) -> int:
    """How many messages the broker holds for us, dead ones included."""
    queues = stack.queues()
    return sum(queues[name]["messages"] for name in ("events", "events.dead"))


def reconnects(stack: Stack) -> int:
    """How often the worker has lost its connection or channel, by its log."""
    log = run("docker", "logs", stack.container("worker-events"))
    return log.count("The stream's broker is lost")


def redelivered(stack: Stack) -> int:
    """How many messages the broker has delivered again since it started, by its own counters."""
    counters = stack.exec("rabbitmq", "rabbitmqctl", "eval", "rabbit_global_counters:overview().")
    return sum(map(int, re.findall(r"messages_redelivered_total *=> *(\d+)", counters)))


SPAN = """
from soc.events.models import DeadLetter, Event
stored = Event.objects.order_by("pk")
letters = DeadLetter.objects.order_by("last_seen_at")
last = [stored.last().received_at, *(letter.last_seen_at for letter in [letters.last()] if letter)]
answer = [stored.filter(pk__gt={known}).first().received_at.timestamp(), max(last).timestamp()]
"""
"""When the first and the last message were stored, of those after the event ``known``."""


def drained_per_second(stack: Stack, malformed: float) -> float:
    """Let a started worker drain what waits for it; return the messages per second."""
    newest = "from soc.events.models import Event\nanswer = Event.objects.latest('pk').pk"
    stack.compose("stop", "worker-events")
    known = stack.data(newest)
    simulate(stack, f"--events={DRAINED}", "--hurry", f"--faults=malformed={malformed}")
    stack.compose("start", "worker-events")
    wait_for("an empty queue", lambda: waiting(stack) == 0, seconds=120)
    first, last = stack.data(SPAN.format(known=known))
    return DRAINED / (last - first)


def kill_the_worker(stack: Stack) -> None:
    run("docker", "kill", "--signal=KILL", stack.container("worker-events"))
    run("docker", "start", stack.container("worker-events"))


@pytest.mark.drill
def test_nothing_is_lost_or_doubled_whatever_dies(
    stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    before, lost = state(stack), reconnects(stack)
    publishing = Publishing(stack, f"--events={EVENTS}", "--rate=1000", f"--faults={FAULTS}")
    publishing.start()
    wait_for("the first events", lambda: state(stack)["events"] > before["events"] + 500)
    for number in range(KILLS):
        kill_the_worker(stack)
        if number == 1:
            run("docker", "restart", "--time=0", stack.container("mariadb"))
        elif number in (2, 4):
            run("docker", "restart", "--time=0", stack.container("rabbitmq"))
        time.sleep(1)
    publishing.join()
    published = publishing.published
    wait_for("an empty queue", lambda: waiting(stack) == 0, seconds=60)
    after = state(stack)
    with capsys.disabled():
        print(f"\npublished {published}\nstored {after}")
        print(f"{reconnects(stack) - lost} reconnects for 2 restarts of the broker")
    good = published["good"] + published["stale"]
    assert published["malformed"] > 0.04 * EVENTS
    assert published["duplicate"] > 0.08 * EVENTS
    assert good + published["malformed"] >= EVENTS
    assert after["events"] - before["events"] == good
    assert after["distinct"] == after["events"]
    assert after["distinct letters"] - before["distinct letters"] == published["malformed"]
    assert after["duplicates"] - before["duplicates"] >= published["duplicate"]
    assert after["stale"] - before["stale"] >= published["stale"]


@pytest.mark.drill
def test_malformed_messages_cost_no_reconnect_no_redelivery_and_little_time(
    stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    simulate(stack, "--events=1", "--hurry")
    wait_for("an empty queue", lambda: waiting(stack) == 0)
    rates = {}
    for malformed in (0.0, 0.1, 0.5, 0.9):
        before = reconnects(stack), redelivered(stack)
        rates[malformed] = drained_per_second(stack, malformed)
        lost, again = reconnects(stack) - before[0], redelivered(stack) - before[1]
        with capsys.disabled():
            print(
                f"\n{malformed:.0%} malformed: {rates[malformed]:,.0f} messages/s, "
                f"{lost} reconnects, {again} redeliveries"
            )
        assert (lost, again) == (0, 0)
    assert rates[0.1] >= 0.8 * rates[0.0]


def test_stale_events_raise_no_alert(stack: Stack) -> None:
    """Robots of which nothing but old events came are unknown to the conditions."""
    published = simulate(
        stack,
        "--bots=20",
        "--faults=silent=14,stale=1",
        "--rate=200",
        "--events=200",
        "--minutes=1",
    )
    assert published["stale"] >= 200
    wait_for("an empty queue", lambda: waiting(stack) == 0)
    # Reported by the worker whose task it is: it may wake the one that mails.
    stack.python(
        "worker-mail-collector",
        """
from soc.logons import tasks as logons
from soc.mail_collector import tasks as mail
mail.watch()
logons.watch()
""",
    )
    found = stack.data("""
from soc.alerts.models import Alert
from soc.events.models import Bot, BotSeen, Event
robots = [f"robot-{n}" for n in range(15, 21)]
# Some name themselves in full.
keys = [bot.pk for bot in Bot.objects.all() if bot.host.partition(".")[0] in robots]
answer = {
    "robots": len(keys),
    "events": Event.objects.filter(bot__in=keys).count(),
    "alive": BotSeen.objects.filter(bot__in=keys, at__isnull=False).count(),
    "alerts": [str(a) for a in Alert.objects.exclude(rule__name__contains="site")
               if any(robot in f"{a.subject} {a.summary}" for robot in robots)],
}
""")
    assert found["robots"] == 6
    assert found["events"] == published["stale"]
    assert found["alive"] == 0
    assert found["alerts"] == []


TAKE_AND_DIE = """
import ssl, time
from kombu import Connection
from soc.settings import CELERY_BROKER_URL, CELERY_BROKER_USE_SSL

taken = 0
for _ in range(100):
    with Connection(CELERY_BROKER_URL, ssl=CELERY_BROKER_USE_SSL, login_method="EXTERNAL") as c:
        if c.default_channel.basic_get("events") is not None:
            taken += 1
            last = time.monotonic()
    if taken and time.monotonic() - last > 3:
        break
    time.sleep(0.1)
print("TAKEN", taken)
"""
"""Takes a message and hangs up on the broker, as a worker does that dies of it."""


@pytest.mark.drill
def test_a_message_that_kills_its_workers_is_kept_unread_and_can_be_replayed(stack: Stack) -> None:
    stack.compose("stop", "worker-events")
    assert stack.inspect("worker-events")["State"]["ExitCode"] == 0
    before = state(stack)
    simulate(stack, "--events=1", "--hurry", "--only=heartbeat")
    printed = stack.python_beside("worker-events", TAKE_AND_DIE)
    assert printed.strip().splitlines()[-1] == f"TAKEN {BY_NAME['events'].delivery_limit + 1}"
    stack.compose("start", "worker-events")
    letter = """
from soc.events.models import DeadLetter
unread = DeadLetter.objects.filter(reason__contains="has not been read")
answer = list(unread.values("pk", "reason"))
"""
    (found,) = wait_for("the dead letter", lambda: stack.data(letter))
    assert found["reason"].startswith("It was delivered 6 times")
    told = stack.exec("web", "python3", "manage.py", "events", "dead", "replay", str(found["pk"]))
    assert "1 replayed" in told
    assert state(stack)["events"] == before["events"] + 1


@pytest.mark.drill
def test_it_flows_again_after_the_brokers_volume_is_deleted(stack: Stack) -> None:
    publishing = Publishing(stack, "--rate=20", "--events=600", "--only=heartbeat")
    before = state(stack)["events"]
    publishing.start()
    wait_for("the first events", lambda: state(stack)["events"] > before)
    stack.compose("rm", "--stop", "--force", "rabbitmq")
    run("docker", "volume", "rm", f"{stack.project}_rabbitmq")
    stack.compose("up", "--detach", "--no-recreate", "--wait", "rabbitmq")
    wiped = state(stack)["events"]
    wait_for("more events", lambda: state(stack)["events"] > wiped + 50)
    publishing.join()
    wait_for("an empty queue", lambda: waiting(stack) == 0)
    assert state(stack)["events"] > wiped + 50


# Logs in as Logstash's output plugin does, which knows no certificate logins.
LOGSTASH = """
import ssl
from kombu import Connection
options = {"ca_certs": "/run/logstash/ca.pem", "certfile": "/run/logstash/cert.pem",
           "keyfile": "/run/logstash/key.pem", "cert_reqs": ssl.CERT_REQUIRED,
           "server_hostname": None}
login = {"userid": "logstash", "password": open("/run/logstash/password").read().strip()}
"""


def as_logstash(stack: Stack, code: str) -> str:
    """Run code as Logstash, and return the last line that it prints."""
    volume = f"--volume={stack.folder}/env/{stack.site}/logstash:/run/logstash:ro"
    printed = stack.python_beside("worker-events", LOGSTASH + code, volume)
    return printed.strip().splitlines()[-1]


def test_a_mistaken_key_and_a_large_message_cost_a_shipper_nothing(stack: Stack) -> None:
    """A refusal would close its channel, and with it all that it publishes later."""
    before, lost = state(stack)["events"], reconnects(stack)
    good = body(of_6(source_name="ControlUp Logon Monitor")).decode()
    code = f"""
import json
good = {good!r}
large = json.dumps({{"message": "x" * 3_000_000}})
with Connection("amqps://rabbitmq:5671//", ssl=options, login_method="PLAIN", **login) as c:
    channel = c.default_channel
    for text, key in ((good, "winlogbeat"), (large, "logstash"), (good, "logstash")):
        message = channel.prepare_message(text.encode(), content_type="application/json")
        channel.basic_publish_confirm(message, "logstash", key, mandatory=True)
    print("RESULT", channel.is_open)
"""
    assert as_logstash(stack, code) == "RESULT True"
    wait_for("the event", lambda: state(stack)["events"] == before + 1)
    reasons = """
from soc.events.models import DeadLetter
newest = DeadLetter.objects.filter(state="waiting").order_by("-pk")[:2]
answer = " ".join(sorted(letter.reason for letter in newest)) if len(newest) == 2 else ""
"""
    told = wait_for("the dead letters", lambda: stack.data(reasons))
    assert "the routing key 'winlogbeat' and not 'logstash'" in told
    assert "It is too large: 3,000,015 bytes" in told
    assert "the first 1,500,000 are kept" in told
    assert reconnects(stack) == lost


def test_what_a_full_queue_refuses_is_lost_without_confirms(stack: Stack) -> None:
    """Why the rule `events/queue` warns long before: Logstash's output wants no confirms."""
    queue, sent, bound = BY_NAME["events"], 300, 20
    small = json.dumps(queue.policy | {"max-length": bound})
    policy = ("--vhost=/", "--priority=9", "--apply-to=queues", "small", "^events$", small)
    good = [body(of_6(record_number=str(number))).decode() for number in range(sent)]
    stack.compose("stop", "worker-events")
    stack.exec("rabbitmq", "rabbitmqctl", "-q", "set_policy", *policy)
    try:
        told = as_logstash(
            stack,
            f"""
from amqp.exceptions import MessageNacked
with Connection("amqps://rabbitmq:5671//", ssl=options, login_method="PLAIN", **login) as c:
    channel = c.default_channel
    for text in {good!r}:
        channel.basic_publish(channel.prepare_message(text.encode()), "logstash", "logstash")
    c.default_channel.basic_qos(0, 1, False)
with Connection("amqps://rabbitmq:5671//", ssl=options, login_method="PLAIN", **login) as c:
    channel = c.default_channel
    try:
        channel.basic_publish_confirm(channel.prepare_message(b"[]"), "logstash", "logstash")
        print("RESULT confirmed")
    except MessageNacked:
        print("RESULT refused")
""",
        )
        assert told == "RESULT refused"
        # A quorum queue counts every few seconds; what is under way at the bound still enters.
        kept = wait_for("the queue's count", lambda: stack.queues()["events"]["messages"])
        assert bound <= kept < sent
    finally:
        stack.exec("rabbitmq", "rabbitmqctl", "-q", "clear_policy", "small")
        stack.compose("start", "worker-events")
    wait_for("an empty queue", lambda: waiting(stack) == 0)


def test_logstash_may_publish_to_its_exchange_and_nothing_else(stack: Stack) -> None:
    code = """
def attempt(act):
    with Connection("amqps://rabbitmq:5671//", ssl=options, login_method="PLAIN", **login) as c:
        try:
            act(c.default_channel)
            c.default_channel.basic_qos(0, 1, False)
            return "allowed"
        except Exception as error:
            return type(error).__name__
def publish(exchange, key):
    return lambda channel: channel.basic_publish(
        channel.prepare_message(b"{}"), exchange=exchange, routing_key=key)
print("RESULT", [
    attempt(lambda channel: channel.exchange_declare(
        "logstash", "topic", durable=True, auto_delete=False)),
    attempt(publish("logstash", "logstash")),
    attempt(publish("soc.tasks", "email")), attempt(publish("", "events")),
    attempt(lambda channel: channel.basic_get("events")),
    attempt(lambda channel: channel.queue_purge("events")),
    attempt(lambda channel: channel.queue_declare("mine")),
    attempt(lambda channel: channel.exchange_declare("mine", "topic"))])
"""
    assert as_logstash(stack, code) == f"RESULT {['allowed'] * 2 + ['AccessRefused'] * 6}"
