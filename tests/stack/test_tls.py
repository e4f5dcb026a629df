"""A scan of everything that speaks TLS: nothing below TLS 1.2, no weak suite."""

from __future__ import annotations

import json

import pytest
import tls_scan

from harness import Stack, run

OF_ECDSA = {name for name in tls_scan.STRONG.values() if "ECDSA" in name}


@pytest.fixture(scope="module")
def answers(stack: Stack) -> dict[str, dict[str, str]]:
    """What each server said to each question."""
    printed = run(
        "docker", "run", "--rm", f"--network={stack.project}_data", "--cap-drop=ALL",
        f"--volume={stack.folder}/tests/stack/tls_scan.py:/scan.py:ro",
        stack.inspect("web")["Config"]["Image"], "python3", "/scan.py",
    )  # fmt: skip
    return json.loads(printed.splitlines()[-1])


@pytest.mark.parametrize("target", tls_scan.TARGETS)
def test_nothing_below_tls_1_2_is_spoken(answers: dict[str, dict[str, str]], target: str) -> None:
    for version in ("SSL 3", "TLS 1.0", "TLS 1.1"):
        assert answers[target][version].startswith("refused"), version


@pytest.mark.parametrize("target", tls_scan.TARGETS)
def test_no_weak_suite_is_taken(answers: dict[str, dict[str, str]], target: str) -> None:
    assert answers[target]["weak suites"].startswith("refused")


@pytest.mark.parametrize("target", tls_scan.TARGETS)
def test_strong_suites_are_taken(answers: dict[str, dict[str, str]], target: str) -> None:
    """Without this a server that refuses everything would pass."""
    taken = {name for name in tls_scan.STRONG.values() if "suite" in answers[target][name]}
    assert taken
    assert taken <= OF_ECDSA


def test_flaws_would_be_seen(stack: Stack) -> None:
    """A server that speaks TLS 1.1 with weak suites does not pass."""
    code = """
import socket, ssl, sys, threading
sys.path.insert(0, "/scan")
import tls_scan
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.minimum_version = ssl.TLSVersion.TLSv1
context.maximum_version = ssl.TLSVersion.TLSv1_2
context.set_ciphers("ALL:@SECLEVEL=0")
context.load_cert_chain("/identity/cert.pem", "/identity/key.pem")
listener = socket.create_server(("127.0.0.1", 0))

def serve():
    while True:
        peer, _ = listener.accept()
        try:
            context.wrap_socket(peer, server_side=True).close()
        except OSError:
            pass

threading.Thread(target=serve, daemon=True).start()
tls_scan.TARGETS["flawed"] = listener.getsockname()
weak = [suite for suite in tls_scan.REGISTERED if suite not in tls_scan.STRONG]
print(tls_scan.ask("flawed", 0x0302, tls_scan.REGISTERED))
print(tls_scan.ask("flawed", 0x0303, weak))
"""
    folder = stack.folder / "env" / stack.site / "web"
    printed = run(
        "docker", "run", "--rm", "--network=none", "--cap-drop=ALL", "--interactive",
        f"--volume={stack.folder}/tests/stack:/scan:ro", f"--volume={folder}:/identity:ro",
        stack.inspect("web")["Config"]["Image"], "python3", "-", stdin=code,
    )  # fmt: skip
    # The server's thread may warn in between.
    old, weak = (line for line in printed.splitlines() if line.startswith(("version", "refused")))
    assert old.startswith("version 0302")
    assert weak.startswith("version 0303, suite")
