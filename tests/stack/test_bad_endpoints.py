"""Every kind of bad endpoint ends as a clear recorded result, and the worker is free again."""

from __future__ import annotations

import pytest
from authorities import Authorities

from harness import Stack, run, wait_for, wait_until_equal

EXPECTED = {
    1: ("connect_refused", "unreachable", "nothing listens there"),
    4440: ("handshake_timeout", "unreachable", "did not complete the handshake within 5 s"),
    4441: ("not_tls", "unreachable", "does not speak TLS, it answered 'HTTP/1.0 400"),
    4443: ("expired", "invalid", "expired"),
    4444: ("self_signed", "invalid", "self-signed"),
    4445: ("name_mismatch", "invalid", "elsewhere.internal"),
    4446: ("not_yet_valid", "invalid", "is valid from"),
    4447: ("missing_intermediate", "invalid", "test intermediate"),
    4448: ("valid", "ok", "It expires in 299 days"),
    4449: ("valid", "critical", "It expires in 1 days"),
    4450: ("unknown_issuer", "invalid", "strange root"),
}
"""Port to outcome, the endpoint's status, and words of the reason."""


@pytest.fixture(scope="module")
def observed(stack: Stack, peers: str, authorities: Authorities) -> dict[int, dict[str, str]]:
    """Register an endpoint per port, and one that does not resolve; wait for two scans of each."""
    stack.data(f"""
from soc.trust.models import Authority
from soc.ssl_certs.models import Endpoint
authority = Authority.objects.create(name="test CA", pem={authorities.root.cert_pem.decode()!r})
for port in {list(EXPECTED)}:
    Endpoint.objects.create(host={peers!r}, port=port, authority=authority)
Endpoint.objects.create(host="nowhere.invalid", authority=authority)
answer = None
""")
    listed = """
from soc.ssl_certs.models import Endpoint
answer = [
    {"port": e.port, "status": e.status, "reason": e.reason, "failures": e.failures,
     "outcome": e.outcome}
    for e in Endpoint.objects.filter(authority__name="test CA")
]
"""

    scan_all = """
from soc.ssl_certs import tasks
from soc.ssl_certs.models import Endpoint
keys = Endpoint.objects.filter(authority__name="test CA").values_list("pk", flat=True)
tasks.scan_batch.apply_async((list(keys),))
"""

    def scanned(field: str, nothing: str) -> list[dict[str, str]]:
        endpoints = stack.data(listed)
        return endpoints if all(e[field] != nothing for e in endpoints) else []

    # A scan that reaches nothing is repeated after a minute before it counts: here, at once.
    stack.python("worker-ssl-certs", scan_all)
    wait_for("the first scans", lambda: scanned("outcome", ""), 120)
    stack.python("worker-ssl-certs", scan_all)
    settled = wait_for("the second scans", lambda: scanned("status", "unknown"), 120)
    return {endpoint["port"]: endpoint for endpoint in settled}


@pytest.mark.parametrize("port", EXPECTED)
def test_a_bad_endpoint_is_recorded(observed: dict[int, dict[str, str]], port: int) -> None:
    outcome, status, words = EXPECTED[port]
    endpoint = observed[port]
    assert (endpoint["outcome"], endpoint["status"]) == (outcome, status)
    assert words in endpoint["reason"]


def test_a_name_that_does_not_resolve_is_recorded(observed: dict[int, dict[str, str]]) -> None:
    endpoint = observed[443]
    assert (endpoint["outcome"], endpoint["status"]) == ("resolve_failed", "unreachable")


def test_one_failure_alone_is_no_alarm(observed: dict[int, dict[str, str]]) -> None:
    assert all(observed[port]["failures"] >= 2 for port in (1, 4440, 4441, 443))


def test_a_failing_certificate_is_mailed_once(stack: Stack, peers: str, observed: object) -> None:
    subject = f"[SOC] CRITICAL: {peers}:4443: "

    def mails() -> list[dict[str, str]]:
        return [mail for mail in stack.mail() if mail["Subject"].startswith(subject)]

    wait_for("the mail", mails, seconds=100)
    stack.run_task("soc.alerts.tasks.make_rounds")
    stack.run_task("soc.notify.tasks.send_due_mail")
    (mail,) = mails()
    assert "expired" in mail["text"]


SCANS = """
from soc.ssl_certs.models import Endpoint
endpoints = [Endpoint.objects.get(host={peer!r}, port=port) for port in (4440, 4448)]
answer = [(e.scans, e.outcome) for e in endpoints]
"""


@pytest.fixture
def scans(stack: Stack, peers: str, observed: object) -> str:
    """Code that tells how often the silent and the good endpoint were scanned.

    They are disabled: from here on nothing but these tests has them scanned.
    """
    stack.data(f"""
from soc.ssl_certs.models import Endpoint
answer = Endpoint.objects.filter(host={peers!r}, port__in=(4440, 4448)).update(enabled=False)
""")
    return SCANS.format(peer=peers)


def test_silent_peers_do_not_keep_a_worker(stack: Stack, scans: str) -> None:
    """A good endpoint waits behind more silent ones than the worker has processes."""
    (silent, _), (good, _) = stack.data(scans)
    stack.python(
        "worker-ssl-certs",
        scans
        + """
from soc.ssl_certs.tasks import scan_endpoint
for endpoint in [endpoints[0]] * 5 + [endpoints[1]]:
    scan_endpoint.apply_async((endpoint.pk,))
""",
    )
    wait_until_equal(
        "every scan",
        lambda: stack.data(scans),
        [[silent + 5, "handshake_timeout"], [good + 1, "valid"]],
        seconds=90,
    )
    wait_for("an empty queue", lambda: stack.queues()["ssl_certs"]["messages"] == 0)
    assert stack.health("worker-ssl-certs") == "healthy"


def test_a_scan_whose_worker_is_killed_is_done_by_the_next(stack: Stack, scans: str) -> None:
    (silent, _), (good, _) = stack.data(scans)
    worker = "worker-ssl-certs"
    stack.python(
        worker,
        scans
        + """
from soc.ssl_certs.tasks import scan_batch
scan_batch.apply_async(([endpoint.pk for endpoint in endpoints],))
""",
    )
    in_hand = f":{4440:04X} 01"
    wait_for("the scan", lambda: in_hand in stack.exec(worker, "cat", "/proc/net/tcp"))
    run("docker", "kill", "--signal=KILL", stack.container(worker))
    assert stack.data(scans) == [[silent, "handshake_timeout"], [good, "valid"]]
    run("docker", "start", stack.container(worker))
    wait_until_equal(
        "the scan",
        lambda: stack.data(scans),
        [[silent + 1, "handshake_timeout"], [good + 1, "valid"]],
    )
    wait_for("an empty queue", lambda: stack.queues()["ssl_certs"]["messages"] == 0)
