"""The probe against servers that speak as they should not, and that Linux cannot run."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import slapd
from harness import free_port
from soc.ldap_probe import wire
from soc.ldap_probe.diagnostics import ACTIVE_DIRECTORY, Outcome, active_directory, printable
from soc.ldap_probe.probe import Finding, Phase, Security, Target, probe


@pytest.fixture(autouse=True)
def client() -> None:
    slapd.need_the_client()


DIAGNOSTIC = (
    "80090308: LdapErr: DSID-0C090446, comment: AcceptSecurityContext error, data {}, v4563\0"
)


def probed(port: int, security: Security = Security.PLAIN, **values: str) -> Finding:
    target = Target("127.0.0.1", port, security, **values)
    return probe(target, network_seconds=1, operation_seconds=1)


def verdict(finding: Finding) -> tuple[str, str]:
    return finding.outcome.value, finding.error


@pytest.mark.parametrize("data", ACTIVE_DIRECTORY)
def test_active_directory_says_in_a_number_why_it_refuses(data: str) -> None:
    with slapd.Peer(slapd.active_directory(49, DIAGNOSTIC.format(data))) as peer:
        finding = probed(peer.port, user="ann@example.org", password="secret")
    name, meaning = ACTIVE_DIRECTORY[data]
    assert verdict(finding) == ("credential", name)
    assert finding.detail.endswith(f"{meaning}. It works: it shows its RootDSE to strangers.")
    assert (finding.bound, "\0" in finding.diagnostic) == (False, False)


def test_an_unknown_number_of_active_directory_is_told_as_it_is() -> None:
    assert active_directory(DIAGNOSTIC.format("7FF")) == (
        "data_7ff",
        "Active Directory says data 7ff",
    )
    assert active_directory("invalid credentials") is None


@pytest.mark.parametrize("code", [8, 13, 48, 53])
def test_whatever_refuses_a_bind_is_a_credential_problem(code: int) -> None:
    with slapd.Peer(slapd.active_directory(code, "signing is required")) as peer:
        finding = probed(peer.port, user="cn=reader", password="secret")
    assert finding.outcome == Outcome.CREDENTIAL
    assert "signing is required" in finding.detail


def test_a_server_that_is_busy_is_no_credential_problem() -> None:
    with slapd.Peer(slapd.active_directory(51, "")) as peer:
        finding = probed(peer.port, user="cn=reader", password="secret")
    assert verdict(finding) == ("down", "server_is_busy")


def test_words_that_are_not_utf_8_are_told_and_break_nothing() -> None:
    with slapd.Peer(slapd.active_directory(49, b"Ung\xfcltig, data 52e")) as peer:
        finding = probed(peer.port, user="cn=reader", password="secret")
    assert finding.outcome in (Outcome.CREDENTIAL, Outcome.DOWN)
    assert finding.detail


def after_the_request(act: Callable[[socket.socket], None]) -> slapd.Conversation:
    def converse(sock: socket.socket) -> None:
        sock.recv(4096)
        act(sock)

    return converse


def drip(sock: socket.socket) -> None:
    for byte in slapd.ldap_message(1, slapd.SEARCH_DONE, slapd.ldap_result(0, "x" * 200)):
        sock.sendall(bytes([byte]))
        time.sleep(0.2)


def test_a_server_that_drips_bytes_ends_as_a_timeout() -> None:
    with slapd.Peer(after_the_request(drip)) as peer:
        assert verdict(probed(peer.port)) == ("timeout", "search_timeout")


def test_a_server_that_drips_during_tls_ends_as_a_timeout() -> None:
    def tls_drip(sock: socket.socket) -> None:
        for byte in b"\x16\x03\x03\x10\x00\x02\x00\x0f" + bytes(100):
            sock.sendall(bytes([byte]))
            time.sleep(0.2)

    with slapd.Peer(after_the_request(tls_drip)) as peer:
        assert verdict(probed(peer.port, Security.LDAPS)) == ("timeout", "tls_timeout")


@pytest.mark.parametrize(
    "flood",
    [
        b"\x30\x84\x7f\x00\x00\x00" + bytes(50_000_000),
        slapd.ldap_message(9, slapd.SEARCH_ENTRY, b"\x04\x64" + b"x" * 100 + b"\x30\x00") * 500_000,
    ],
    ids=["one message", "messages nobody asked for"],
)
def test_a_server_that_sends_fifty_megabytes_is_cut_off(flood: bytes) -> None:
    with slapd.Peer(after_the_request(lambda sock: sock.sendall(flood))) as peer:
        target = Target("127.0.0.1", peer.port, Security.PLAIN)
        finding = probe(target, operation_seconds=20)
    assert verdict(finding) == ("down", "too_much")


def test_clear_text_behind_the_agreement_to_tls_is_refused() -> None:
    agreed = slapd.ldap_message(1, slapd.EXTENDED_RESPONSE, slapd.ldap_result(0, ""))
    more = slapd.ldap_message(2, slapd.BIND_RESPONSE, slapd.ldap_result(0, ""))
    with slapd.Peer(after_the_request(lambda sock: sock.sendall(agreed + more))) as peer:
        finding = probed(peer.port, Security.STARTTLS)
    assert verdict(finding) == ("down", "starttls_refused")
    assert "clear text" in finding.detail


def test_a_server_without_starttls_gets_no_password() -> None:
    heard: list[bytes] = []

    def converse(sock: socket.socket) -> None:
        refusal = slapd.ldap_result(2, "unsupported extended operation")
        while request := sock.recv(4096):
            heard.append(request)
            sock.sendall(slapd.ldap_message(1, slapd.EXTENDED_RESPONSE, refusal))

    with slapd.Peer(converse) as peer:
        finding = probed(peer.port, Security.STARTTLS, user="cn=reader", password="secret")
    assert verdict(finding) == ("down", "starttls_refused")
    assert b"secret" not in b"".join(heard)


@pytest.mark.parametrize(
    "garbage",
    [b"\x30\x03\x01\x01\xff", b"\x30\x80\x00\x00", b"\x30\x00", b"\x00" * 100, b"HTTP/1.1 400\r\n"],
)
def test_garbage_is_no_ldap(garbage: bytes) -> None:
    def converse(sock: socket.socket) -> None:
        sock.recv(4096)
        sock.sendall(garbage)
        sock.shutdown(socket.SHUT_WR)
        sock.recv(4096)

    with slapd.Peer(converse) as peer:
        assert probed(peer.port).outcome == Outcome.DOWN


def test_a_dead_name_server_holds_nobody_longer_than_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer.wait(30))
    finding = probed(389)
    answer.set()
    assert verdict(finding) == ("down", "resolve_timeout")
    assert list(finding.milliseconds) == [Phase.RESOLVE]


def test_the_second_address_of_a_name_is_tried_when_the_first_refuses() -> None:
    family, tcp = socket.AF_INET, wire.Address
    with slapd.Peer(lambda sock: None) as peer:
        dead = tcp(family, ("127.0.0.1", free_port()))
        sock, address = wire.connect(
            [dead, tcp(family, ("127.0.0.1", peer.port))], wire.Deadline(2)
        )
        sock.close()
    assert address.address == ("127.0.0.1", peer.port)


def test_probes_leave_no_descriptor_open() -> None:
    with slapd.Peer(slapd.active_directory(49, DIAGNOSTIC.format("52e"))) as peer:
        probed(peer.port, user="x", password="y")
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(20):
            probed(peer.port, user="x", password="y")
            probed(peer.port, Security.LDAPS)
            probed(1)
        # The peer's own ends are closed by its threads.
        time.sleep(0.2)
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1


def test_what_a_server_says_is_one_short_line() -> None:
    assert printable("a\0b\r\n\x1b[31m c" + "x" * 1000)[:10] == "a b [31m c"
    assert len(printable("x" * 1000)) == 300
