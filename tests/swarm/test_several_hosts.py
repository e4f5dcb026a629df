"""A site on a swarm of three hosts: what is refused, what every host serves, a host that dies."""

from __future__ import annotations

import json
import socket
import ssl
from contextlib import closing
from pathlib import Path

import pytest
from nodes import Nodes, images

from harness import Stack, run, wait_for, wait_until_equal
from soc.provision.swarm import TWICE

pytestmark = pytest.mark.drill

MAILS = 300
SEND = f"""
from django.db import transaction
from soc.core.severity import Severity
from soc.notify import outbox, tasks
from soc.notify.models import Subscription
from soc.notify.templates import Notice
to, _ = Subscription.objects.get_or_create(
    name="swarm", defaults=dict(recipients="swarm@health.internal", applications="logons",
                                storm_limit=30_000))
with transaction.atomic():
    for number in range({MAILS}):
        notice = Notice(title=f"swarm {{number}}", severity=Severity.WARNING, summary="A test.",
                        facts={{}})
        outbox.enqueue(notice, f"swarm:{{number}}", topic=f"swarm:{{number}}", to=[to])
tasks.wake()
print("queued")
"""
STATES = """
import json
from collections import Counter
from soc.notify.models import OutboundMail
mails = OutboundMail.objects.filter(subscription__name="swarm")
print(json.dumps(Counter(mails.values_list("state", flat=True))))
"""


def incomplete(nodes: Nodes) -> dict[str, str]:
    """Return the services that lack tasks; those of a lost host count as running."""
    return {
        service: f"{running}/{wanted}"
        for service, (running, wanted) in nodes.replicas().items()
        if running < wanted
    }


def status_line(address: str, port: int, authority: Path) -> str:
    """Ask a node's web port as a browser does that knows the site's CA."""
    context = ssl.create_default_context(cafile=authority)
    with (
        closing(socket.create_connection((address, port), timeout=10)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
        return connection.recv(200).split(b"\r\n")[0].decode()


def test_a_start_says_what_a_swarm_lacks(site: Stack, nodes: Nodes) -> None:
    site.set(SOC_BIND="127.0.0.1")
    assert "set it to 0.0.0.0" in nodes.make(site.site, "up", check=False)
    site.set(SOC_BIND="0.0.0.0")
    assert "docker save" in nodes.make(site.site, "up", check=False)
    only_two = Nodes(nodes.name, 2, nodes.tree)
    only_two.load(*images(site))
    said = nodes.make(site.site, "up", check=False)
    assert "a node has not the image" in said
    assert f"{nodes.names[2]}: " in said
    assert not nodes.replicas()


def test_every_host_serves_and_what_was_scaled_stays(site: Stack, nodes: Nodes) -> None:
    nodes.load(*images(site))
    nodes.make(site.site, "up")
    nodes.run(nodes.names[0], "docker", "service", "scale", f"{site.project}_worker-email=3")
    nodes.make(site.site, "up")
    three = {f"{site.project}_{service}": (3, 3) for service in ("web", "worker-email")}
    two = {f"{site.project}_{service}": (2, 2) for service in TWICE if service != "worker-email"}
    replicas = nodes.replicas()
    assert {service: n for service, n in replicas.items() if n != (1, 1)} == three | two
    authority = site.folder / "env" / site.site / "ca" / "ca.pem"
    for node in nodes.names:
        assert status_line(nodes.address(node), site.web_port, authority).endswith(" 200 OK")


def test_a_host_that_dies_takes_no_mail_with_it(site: Stack, nodes: Nodes) -> None:
    """Its workers come back on the others; each mail goes out, and none under two names."""
    worker = f"{site.project}_worker-shared"
    senders = nodes.tasks(f"{site.project}_worker-email")
    victim = next(node for node, _ in senders if node != nodes.names[0])
    assert nodes.python(worker, SEND, besides=victim) == "queued"

    def states() -> dict[str, int]:
        return json.loads(nodes.python(worker, STATES, besides=victim))

    wait_for("the first mails", lambda: states().get("sent", 0) > 10)
    run("docker", "kill", victim)
    wait_until_equal("every mail", states, {"sent": MAILS}, seconds=400)
    node, catcher = nodes.tasks(f"{site.project}_catcher")[0]
    shown = nodes.run(
        node, "docker", "exec", catcher, "python3", "-m", "soc.notify.catcher", "show"
    )
    subjects = [line for line in shown.splitlines() if line.startswith("Subject: ")]
    told = [subject for subject in subjects if "swarm" in subject]
    print(f"mails: {MAILS}, delivered: {len(told)}, different: {len(set(told))}")
    assert len(set(told)) == MAILS
    # A worker that dies between the relay's answer and its mark sends one again.
    assert len(told) <= MAILS + 1
    wait_until_equal("the services on the other hosts", lambda: incomplete(nodes), {}, seconds=120)
