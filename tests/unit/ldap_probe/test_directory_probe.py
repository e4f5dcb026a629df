"""The probe against servers that speak as they should not, and that Linux cannot run."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import pki
import slapd
from harness import free_port
from soc.ldap_probe import wire
from soc.ldap_probe.diagnostics import (
    ACTIVE_DIRECTORY,
    Outcome,
    Phase,
    Security,
    active_directory,
    printable,
)
from soc.ldap_probe.probe import DirectoryTarget, Finding, probe

POLICY, EXPIRED, EXPIRING = (
    *("1.3.6.1.4.1.42.2.27.8.5.1", "2.16.840.1.113730.3.4.4", "2.16.840.1.113730.3.4.5"),
)


@pytest.fixture(autouse=True)
def client() -> None:
    slapd.need_the_client()


DIAGNOSTIC = (
    "80090308: LdapErr: DSID-0C090446, comment: AcceptSecurityContext error, data {}, v4563\0"
)


def probed(port: int, security: Security = Security.PLAIN, **values: str) -> Finding:
    target = DirectoryTarget("127.0.0.1", port, security, **values)
    return probe(target, network_seconds=1, operation_seconds=1)


def verdict(finding: Finding) -> tuple[str, str]:
    return finding.outcome.value, finding.error


@pytest.mark.parametrize("data", ACTIVE_DIRECTORY)
def test_active_directory_says_in_a_number_why_it_refuses(data: str) -> None:
    with slapd.Peer(slapd.active_directory(49, DIAGNOSTIC.format(data))) as peer:
        finding = probed(peer.port, user="ann@example.org", password="secret")
    name, meaning = ACTIVE_DIRECTORY[data]
    assert verdict(finding) == ("credential", name)
    assert finding.detail.endswith(
        f"{meaning}. It answers, and shows its RootDSE to anonymous clients."
    )
    assert (finding.bound, "\0" in finding.diagnostic) == (False, False)


def test_an_unknown_number_of_active_directory_is_told_as_it_is() -> None:
    assert active_directory(DIAGNOSTIC.format("7FF")) == (
        "data_7ff",
        "Active Directory says data 7ff",
    )
    assert active_directory("invalid credentials") is None


@pytest.mark.parametrize("code", [48, 49, 53])
def test_whatever_else_refuses_a_bind_is_a_credential_problem(code: int) -> None:
    with slapd.Peer(slapd.active_directory(code, "not this user")) as peer:
        finding = probed(peer.port, user="cn=reader", password="secret")
    assert (finding.outcome, finding.bound) == (Outcome.CREDENTIAL, False)
    assert "not this user" in finding.detail


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (8, "BindSimple: Transport encryption required."),
        (13, "Operation requires a secure connection"),
        (53, "Minimum SSF not met."),
    ],
    ids=["Samba", "389-ds", "OpenLDAP"],
)
def test_a_port_that_demands_tls_says_nothing_about_the_password(code: int, words: str) -> None:
    with slapd.Peer(slapd.active_directory(code, words)) as peer:
        finding = probed(peer.port, user="cn=reader", password="secret")
    assert verdict(finding) == ("security", "security_required")
    assert finding.bound is None
    assert "choose ldaps or StartTLS" in finding.detail


def test_a_server_that_is_busy_is_no_credential_problem() -> None:
    with slapd.Peer(slapd.active_directory(51, "")) as peer:
        finding = probed(peer.port, user="cn=reader", password="secret")
    assert verdict(finding) == ("down", "server_is_busy")


def test_words_that_are_not_utf_8_are_told_and_break_nothing() -> None:
    with slapd.Peer(slapd.active_directory(49, b"Ung\xfcltig, data 52e")) as peer:
        finding = probed(peer.port, user="cn=reader", password="secret")
    assert finding.outcome in (Outcome.CREDENTIAL, Outcome.DOWN)
    assert finding.detail


# --- What a bind's answer tells about the password ----------------------------------------------

# Real answers: OpenLDAP 2.6 with ppolicy, and 389-ds 3.1, whose lengths take four octets.
RESET = {POLICY: b"\x30\x03\x81\x01\x02"}
WARNED = {POLICY: b"\x30\x06\xa0\x04\x80\x02\x02\x09"}
GRACE = {POLICY: b"\x30\x05\xa0\x03\x81\x01\x09"}


@pytest.mark.parametrize(
    ("controls", "expected", "bound", "left"),
    [
        (RESET, ("credential", "must_reset_password"), True, None),
        ({EXPIRED: b"0"}, ("credential", "must_reset_password"), True, None),
        (GRACE, ("credential", "grace_login"), False, None),
        (GRACE | {EXPIRED: b"0"}, ("credential", "grace_login"), False, None),
        (WARNED, ("ok", ""), True, 521),
        ({EXPIRING: b"86400"}, ("ok", ""), True, 86400),
        ({POLICY: b"\x30\x00"}, ("ok", ""), True, None),
        ({POLICY: b"\xff\x84\x7f", EXPIRING: b"soon"}, ("ok", ""), True, None),
        ({}, ("ok", ""), True, None),
    ],
    ids=["reset", "reset 389", "grace", "grace 389", "warned", "warned 389", "none", "bad", "no"],
)
def test_a_bind_that_is_accepted_tells_about_its_password(
    controls: dict[str, bytes], expected: tuple[str, str], bound: bool, left: int | None
) -> None:
    answers = slapd.entry("cn=a,dc=corp"), slapd.done(0)
    with slapd.Peer(slapd.searching(*answers, controls=controls)) as peer:
        finding = probed(peer.port, user="cn=reader", password="secret")
    assert verdict(finding) == expected
    assert (finding.bound, finding.password_expires_in) == (bound, left)


def test_a_password_that_must_be_changed_is_a_problem_of_the_credential() -> None:
    """OpenLDAP (pwdReset) accepts the bind, and refuses every search after it."""
    words = "Operations are restricted to bind/unbind/abandon/StartTLS/modify password"
    with slapd.Peer(slapd.searching(slapd.done(50, words))) as peer:
        finding = probed(peer.port, user="cn=a", password="x", base="o=a")
    assert verdict(finding) == ("credential", "must_reset_password")


# --- Names in certificates ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("san", "name", "expected"),
    [
        (["127.0.0.1"], "", ("ok", "")),
        (["dc1.corp.example"], "", ("certificate", "wrong_name")),
        (["dc1.corp.example"], "dc1.corp.example", ("ok", "")),
        # Samba's own: the name is in the subject alone.
        ([], "dc1.corp.example", ("certificate", "wrong_name")),
    ],
)
def test_the_name_in_the_certificate(
    tmp_path: Path, san: list[str], name: str, expected: tuple[str, str]
) -> None:
    root = pki.issue("root", ca=True)
    leaf = pki.issue("dc1.corp.example", root, san=san)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pki.write_server_files(tmp_path, leaf))
    answer = slapd.active_directory(0, "")

    def converse(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as secured:
            answer(secured)

    with slapd.Peer(converse) as peer:
        authority = root.cert_pem.decode()
        finding = probed(peer.port, Security.LDAPS, authority=authority, certificate_name=name)
    assert verdict(finding) == expected


# --- Searches -----------------------------------------------------------------------------------

PARTITIONS = [
    slapd.reference(f"ldap://corp.example/{part}DC=corp,DC=example")
    for part in ("CN=Configuration,", "DC=DomainDnsZones,", "DC=ForestDnsZones,")
]


def searched(*answers: tuple[int, bytes]) -> Finding:
    with slapd.Peer(slapd.searching(*answers)) as peer:
        return probed(peer.port, base="DC=corp", filter="(cn=a)")


def test_references_below_the_base_do_not_send_clients_elsewhere() -> None:
    """Active Directory adds these three to every search from its root (Samba 4.22: the same)."""
    finding = searched(*PARTITIONS, slapd.done(0))
    assert verdict(finding) == ("refused", "nothing_found")
    assert "Parts below the base are elsewhere: ldap://corp.example/CN=Config" in finding.detail


def test_a_server_that_ignores_the_size_limit() -> None:
    """Samba 4.22 sends everything that matches: with 11,500 long names that is 4 MB."""
    long = slapd.entry("cn=" + "a" * 100)
    assert searched(*[long] * 45_000, slapd.done(0)).outcome == Outcome.OK


def test_an_entry_is_an_answer_whatever_follows() -> None:
    """ApacheDS sends the entry and ends with 80, other."""
    assert searched(slapd.entry("cn=a"), slapd.done(80, "failed")).outcome == Outcome.OK


def test_a_server_that_refuses_paged_results_is_asked_without_them() -> None:
    """OpenLDAP with size.prtotal=disabled does so even where the control is not critical."""

    def converse(sock: socket.socket) -> None:
        while request := sock.recv(4096):
            number = request[4]
            if request[5] != slapd.SEARCH_REQUEST:
                return
            if b"1.2.840.113556.1.4.319" in request:
                kind, content = slapd.done(11, "pagedResults control not allowed")
            else:
                kind, content = slapd.entry("cn=a")
            sock.sendall(slapd.ldap_message(number, kind, content))

    with slapd.Peer(converse) as peer:
        assert probed(peer.port, base="DC=corp", filter="(cn=a)").outcome == Outcome.OK


# --- Servers that speak as they should not ------------------------------------------------------


def after_the_request(act: Callable[[socket.socket], None]) -> slapd.Conversation:
    def converse(sock: socket.socket) -> None:
        sock.recv(4096)
        act(sock)

    return converse


def drip(sock: socket.socket) -> None:
    for byte in slapd.ldap_message(1, slapd.SEARCH_DONE, slapd.ldap_result(0, "x" * 200)):
        sock.sendall(bytes([byte]))
        time.sleep(0.2)


def test_a_bind_that_is_not_answered_says_where_to_look() -> None:
    """OpenLDAP with a disabled backend, a read-only controller without its writable partner."""
    slapd.need_the_client()
    with slapd.Peer(slapd.hanging) as peer:
        target = DirectoryTarget("127.0.0.1", peer.port, Security.PLAIN, user="cn=a", password="x")
        found = probe(target, network_seconds=2, operation_seconds=0.5)
    assert (found.outcome, found.error, found.bound) == (Outcome.TIMEOUT, "bind_timeout", None)
    assert "the bind was not answered" in found.detail
    assert "writable partner" in found.detail


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
        target = DirectoryTarget("127.0.0.1", peer.port, Security.PLAIN)
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
