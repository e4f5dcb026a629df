"""Faults: health checks see them, and the stack comes back without a hand.

The broker's part is tested on two series of RabbitMQ, because 4.3 refuses control queues that
4.0 took.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from harness import Stack, new_name, run, wait_for
from soc.runtime.queues import BY_NAME, QUEUES


def healthy(stack: Stack, service: str) -> bool:
    """Run a service's own health check now, without the pause that follows one that passes."""
    _, steady, *check = stack.inspect(service)["Config"]["Healthcheck"]["Test"]
    assert steady == "steady"
    verdict = stack.exec(
        service, "sh", "-c", 'timeout 5 "$@" >&2 && echo HEALTHY || true', "-", *check
    )  # fmt: skip
    return "HEALTHY" in verdict


def signal_all(stack: Stack, service: str, name: str) -> None:
    """Send a signal to every process of a container; the first takes none from inside."""
    stack.exec(service, "sh", "-c", f"kill -{name} -1 || true")
    run("docker", "kill", f"--signal={name}", stack.container(service))


def control(stack: Stack, action: str, worker: str, queue: str) -> str:
    """Tell a worker to take up or leave a queue, as Flower may; its own pages are read-only."""
    return stack.python(
        "flower",
        f"from soc.runtime.celery import app\n"
        f"print(app.control.{action}({queue!r}, destination=[{worker!r}], reply=True, timeout=10))",
    )


def test_health_checks_see_what_they_are_for(stack: Stack) -> None:
    """A worker that answers but has lost its queue; a beat and two servers that hang."""
    frozen = ("beat", "web", "flower")
    watched = (*frozen, "worker-email")
    assert all(healthy(stack, service) for service in watched)
    worker = f"email@{stack.inspect('worker-email')['Config']['Hostname']}"
    wait_for("Flower to know it", lambda: worker in stack.flower("/api/workers?refresh=1")[1])
    assert "no longer" in control(stack, "cancel_consumer", worker, "email")
    for service in frozen:
        signal_all(stack, service, "STOP")
    try:
        for service in watched:
            wait_for(f"{service} unhealthy", lambda s=service: not healthy(stack, s), seconds=60)
        # Checks that the engine gave up end by themselves: 8 of them, and the engine's own.
        for _ in range(8):
            stack.exec("web", "timeout", "1", "serves", "8443", "/healthz", check=False)
        time.sleep(5)
        assert run("docker", "top", stack.container("web")).count("openssl s_client") <= 4
    finally:
        for service in frozen:
            signal_all(stack, service, "CONT")
    control(stack, "add_consumer", worker, "email")
    for service in watched:
        wait_for(f"{service} healthy", lambda s=service: healthy(stack, s), seconds=60)


def test_a_health_check_costs_almost_nothing(stack: Stack) -> None:
    """No interpreter starts for it: what it runs is a shell and a stat, or one TLS handshake."""
    for service in ("beat", "worker-email", "web", "flower"):
        (kind, *programs) = stack.inspect(service)["Config"]["Healthcheck"]["Test"]
        assert kind == "CMD"
        for program in programs[:2]:
            code = stack.exec(service, "cat", f"/usr/local/bin/{program}")
            assert code.startswith("#!/bin/sh")
            assert "python" not in code


@pytest.mark.parametrize(
    "services", [("worker-email", "beat", "web", "flower"), ("rabbitmq",), ("mariadb",)]
)
def test_sigterm_ends_a_service_in_time(stack: Stack, services: tuple[str, ...]) -> None:
    stack.compose("stop", *services)
    codes = {service: stack.inspect(service)["State"]["ExitCode"] for service in services}
    stack.compose("start", *services)
    assert codes == dict.fromkeys(services, 0)
    for service in services:
        wait_for(f"{service} healthy", lambda s=service: healthy(stack, s), seconds=90)
    wait_for_consumers(stack)


def test_an_alarm_of_the_broker_is_named_as_the_cause(stack: Stack) -> None:
    """RabbitMQ documentation, "Memory and Disk Alarms": whoever publishes is blocked."""
    limit = ("rabbitmqctl", "-q", "set_vm_memory_high_watermark")

    def named() -> bool:
        return "!! RabbitMQ has taken no messages" in stack.make("status", check=False)

    stack.exec("rabbitmq", *limit, "absolute", "1MB")
    try:
        wait_for("the alarm to be named", named)
    finally:
        stack.exec("rabbitmq", *limit, "0.6")
    wait_for("its end", lambda: not named())


def test_a_restart_of_the_database_fails_no_task(stack: Stack) -> None:
    """Workers keep their connections between tasks, and these die with the server."""
    counts = """
from soc.core.models import TaskFailure
from soc.ssl_certs.models import Endpoint
answer = [Endpoint.objects.get(host="web").scans, TaskFailure.objects.count()]
"""
    scans = """
from soc.ssl_certs import tasks
from soc.ssl_certs.models import Endpoint
for _ in range(4):
    tasks.scan_endpoint.apply_async((Endpoint.objects.get(host="web").pk,))
"""
    observed, failed = stack.data(counts)
    stack.python("worker-ssl-certs", scans)
    wait_for("the first scans", lambda: stack.data(counts)[0] >= observed + 4)
    stack.compose("restart", "mariadb")
    wait_for("mariadb healthy", lambda: healthy(stack, "mariadb"))
    stack.python("worker-ssl-certs", scans)
    wait_for("the second scans", lambda: stack.data(counts)[0] >= observed + 8)
    assert stack.data(counts)[1] == failed


@pytest.fixture(
    scope="module", params=["configured", pytest.param("other", marks=pytest.mark.drill)]
)
def series(request: pytest.FixtureRequest, stack: Stack) -> Iterator[Stack]:
    """The running site, and one with the other series of RabbitMQ beside it."""
    if request.param == "configured":
        yield stack
        return
    image = request.getfixturevalue("other_rabbitmq")
    other = Stack(stack.folder, new_name())
    try:
        other.create(RABBITMQ_IMAGE=image)
        other.make("up")
        yield other
    finally:
        other.remove()
        run("ln", "-sfn", f"env/{stack.site}.env", ".env", cwd=stack.folder)


def consumers(stack: Stack, queue: str) -> int:
    return stack.queues()[queue]["consumers"]


def wait_for_consumers(stack: Stack) -> None:
    """Wait until every worker is back; Celery looks for a lost broker every 32 s at the rarest."""
    for queue in QUEUES:
        wait_for(f"a consumer of {queue.name}", lambda q=queue.name: consumers(stack, q) == 1, 90)


def test_the_series_differ(series: Stack, stack: Stack) -> None:
    version = series.exec("rabbitmq", "rabbitmqctl", "-q", "version").strip()
    if series is not stack:
        assert version != stack.exec("rabbitmq", "rabbitmqctl", "-q", "version").strip()


def test_a_delayed_task_arrives(series: Stack) -> None:
    """Proves that the definitions hold the delayed-delivery topology as kombu expects it."""
    key = series.data("""
from soc.ssl_certs.models import Endpoint
answer = Endpoint.objects.get(host="rabbitmq").pk
""")
    count = f"""
from soc.ssl_certs.models import Endpoint
answer = Endpoint.objects.get(pk={key}).scans
"""
    before = series.data(count)
    started = time.monotonic()
    series.python(
        "worker-ssl-certs",
        f"from soc.ssl_certs import tasks\ntasks.scan_endpoint.apply_async(({key},), countdown=5)",
    )
    wait_for("the delayed scan", lambda: series.data(count) > before, seconds=30)
    assert time.monotonic() - started > 5


def test_every_limit_is_in_effect(series: Stack) -> None:
    listed = series.exec(
        "rabbitmq", "rabbitmqctl", "-q", "--formatter=json",
        "list_queues", "name", "effective_policy_definition",
    )  # fmt: skip
    # One series writes an object, the other a list of pairs.
    effective = {q["name"]: dict(q["effective_policy_definition"]) for q in json.loads(listed)}
    assert {q.name: effective[q.name] for q in QUEUES} == {q.name: q.policy for q in QUEUES}


TAKE_AND_DIE = """
import ssl, time
from kombu import Connection, Exchange
from soc.runtime.celery import app
from soc.settings import CELERY_BROKER_URL, CELERY_BROKER_USE_SSL

with app.producer_pool.acquire(block=True) as producer:
    producer.publish("x", exchange=Exchange("soc.tasks", "topic", no_declare=True),
                     routing_key="email", mandatory=True)
taken = 0
for _ in range(100):
    with Connection(CELERY_BROKER_URL, ssl=CELERY_BROKER_USE_SSL, login_method="EXTERNAL") as c:
        if c.default_channel.basic_get("email") is not None:
            taken += 1
            last = time.monotonic()
    if taken and time.monotonic() - last > 5:
        break
    time.sleep(0.1)
print("TAKEN", taken)
"""
"""Takes a message and hangs up on the broker, as a worker does that dies of it, until none comes
back for long."""


def test_a_message_that_kills_its_workers_is_parked(series: Stack) -> None:
    parked = series.dead_letters("email")
    # Nothing but the test's message may be in the queue, and beat fills it.
    series.compose("stop", "beat")
    wait_for("an empty queue", lambda: series.queues()["email"]["messages"] == 0)
    series.compose("stop", "worker-email")
    try:
        printed = series.python_beside("worker-email", TAKE_AND_DIE)
        wait_for("the dead letter", lambda: series.dead_letters("email") > parked)
    finally:
        series.compose("start", "beat", "worker-email")
    assert printed.strip().splitlines()[-1] == f"TAKEN {BY_NAME['email'].delivery_limit + 1}"
    assert series.dead_letters("email") == parked + 1
    wait_for_consumers(series)


def test_a_refused_message_is_parked(series: Stack) -> None:
    parked = series.dead_letters("email")
    series.python(
        "worker-email",
        """
from kombu import Exchange
from soc.runtime.celery import app
with app.producer_pool.acquire(block=True) as producer:
    producer.publish(b"{", exchange=Exchange("soc.tasks", "topic", no_declare=True),
                     routing_key="email", content_type="application/json",
                     content_encoding="utf-8")
""",
    )
    wait_for("the dead letter", lambda: series.dead_letters("email") == parked + 1)


def test_a_worker_comes_back_after_a_network_cut(series: Stack) -> None:
    """It keeps its host name; what the broker remembers of it must not lock it out."""
    container = series.container("worker-email")
    network = f"{series.project}_data"
    run("docker", "network", "disconnect", network, container)
    wait_for("the broker to notice", lambda: consumers(series, "email") == 0, seconds=60)
    run("docker", "network", "connect", network, container)
    wait_for("the worker to be back", lambda: consumers(series, "email") == 1, seconds=60)
    wait_for("its health", lambda: healthy(series, "worker-email"), seconds=60)


def test_a_killed_worker_comes_back_under_its_name(series: Stack) -> None:
    hostname = series.inspect("worker-email")["Config"]["Hostname"]
    run("docker", "kill", "--signal=KILL", series.container("worker-email"), check=False)
    wait_for("the consumer to go", lambda: consumers(series, "email") == 0, seconds=30)
    run("docker", "start", series.container("worker-email"))
    wait_for("the worker to be back", lambda: consumers(series, "email") == 1, seconds=60)
    assert series.inspect("worker-email")["Config"]["Hostname"] == hostname


def test_a_wiped_broker_comes_back_by_itself(series: Stack) -> None:
    series.compose("rm", "--stop", "--force", "rabbitmq")
    run("docker", "volume", "rm", f"{series.project}_rabbitmq")
    series.compose("up", "--detach", "--no-recreate", "--wait", "rabbitmq")
    wait_for_consumers(series)
