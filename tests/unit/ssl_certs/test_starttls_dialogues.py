"""The dialogues that lead to TLS, with servers that agree, refuse, or say something else."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import pki
from soc.common.net import a_label
from soc.ssl_certs import dialogues, farewells, probe
from soc.ssl_certs.targets import Outcome, ProbeError, StartTls, Target

HOST = "www.example.org"
LEAF = pki.issue(HOST, san=[HOST])

Script = Sequence[tuple[bytes, bytes]]
"""What the server says when it has read what: nothing is read before the first of a greeting."""

LDAP_REQUEST = bytes.fromhex("301d02010177188016") + b"1.3.6.1.4.1.1466.20037"
LDAP_SUCCESS = bytes.fromhex("300c02010178070a010004000400")
LDAP_REFUSED = bytes.fromhex("301902010178140a010204000c0d") + b"no TLS for you"[:13]
STREAM = (
    b"<?xml version='1.0'?><stream:stream to='www.example.org' version='1.0' xmlns='%b'"
    b" xmlns:stream='http://etherx.jabber.org/streams'>"
)
FEATURES = b"<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:features>"
STREAM_ERROR = (
    b"<stream:stream id='1' from='elsewhere.test' xmlns='jabber:client'><stream:error>"
    b"<host-unknown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>"
)
START = b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
PROCEED = b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
SSL_REQUEST = bytes.fromhex("0000000804d2162f")
MYSQL_GREETING = b"\x0a11.8.9-MariaDB\0" + bytes(13) + bytes.fromhex("ffff") + bytes(31)
MYSQL_START = bytes.fromhex("008a0800 00000001 2d") + bytes(23)
MYSQL_NOBODY = MYSQL_START + b"soc-certificate-probe\0" + b"\0" + b"mysql_native_password\0"


def packet(number: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "little") + bytes([number]) + payload


AGREEMENTS: dict[StartTls, Script] = {
    StartTls.IMAP: [
        (b"", b"* OK [CAPABILITY IMAP4rev1 STARTTLS] ready\r\n"),
        (b"a STARTTLS\r\n", b"* CAPABILITY IMAP4rev1\r\na OK begin\r\n"),
    ],
    StartTls.POP3: [(b"", b"+OK ready\r\n"), (b"STLS\r\n", b"+OK begin\r\n")],
    StartTls.LDAP: [(LDAP_REQUEST, LDAP_SUCCESS)],
    StartTls.POSTGRESQL: [(SSL_REQUEST, b"S")],
    StartTls.XMPP: [(STREAM % b"jabber:client", FEATURES), (START, PROCEED)],
    StartTls.XMPP_SERVER: [(STREAM % b"jabber:server", FEATURES), (START, PROCEED)],
    StartTls.FTP: [
        (b"", b"220-hello\r\n of more lines\r\n220 ready\r\n"),
        (b"AUTH TLS\r\n", b"234 go\r\n"),
    ],
    StartTls.SMTP: [
        (b"", b"220 mail.example ESMTP\r\n"),
        (b"EHLO [127.0.0.1]\r\n", b"250-mail.example\r\n250 STARTTLS\r\n"),
        (b"STARTTLS\r\n", b"220 go ahead\r\n"),
    ],
    StartTls.MYSQL: [(b"", packet(0, MYSQL_GREETING)), (packet(1, MYSQL_START), b"")],
}

LOGIN = packet(2, MYSQL_NOBODY)
DENIED = b"\xff\x15\x04#28000Access denied"
FAREWELLS: list[tuple[StartTls, Script]] = [
    (StartTls.SMTP, [(b"QUIT\r\n", b"221 bye\r\n")]),
    (StartTls.IMAP, [(b"b LOGOUT\r\n", b"* BYE\r\nb OK\r\n")]),
    (StartTls.POP3, [(b"QUIT\r\n", b"+OK\r\n")]),
    (StartTls.FTP, [(b"QUIT\r\n", b"221 bye\r\n")]),
    (StartTls.LDAP, [(bytes.fromhex("30050201024200"), b"")]),
    (StartTls.XMPP, []),
    (StartTls.XMPP_SERVER, []),
    (StartTls.POSTGRESQL, []),
    (StartTls.MYSQL, [(LOGIN, packet(3, DENIED))]),
    # A server that wants another kind of password, and one that takes anybody.
    (
        StartTls.MYSQL,
        [
            (LOGIN, packet(3, b"\xfecaching_sha2_password\0scramble")),
            (packet(4, b""), packet(5, DENIED)),
        ],
    ),
    (StartTls.MYSQL, [(LOGIN, packet(3, bytes(7))), (packet(0, b"\x01"), b"")]),
]

REFUSALS: list[tuple[StartTls, Script, str]] = [
    (StartTls.IMAP, [(b"", b"* BYE go away\r\n")], "it greeted with '* BYE go away'"),
    (StartTls.IMAP, [(b"", b"* OK\r\n"), (b"a STARTTLS\r\n", b"a BAD what\r\n")], "'a BAD what'"),
    (StartTls.IMAP, [(b"", b"* OK\r\n"), (b"a STARTTLS\r\n", b"a OK go\r\n* x\r\n")], "in clear"),
    (StartTls.POP3, [(b"", b"+OK\r\n"), (b"STLS\r\n", b"-ERR no\r\n")], "'-ERR no' where +OK"),
    (StartTls.LDAP, [(LDAP_REQUEST, LDAP_REFUSED)], "result code 2"),
    (StartTls.LDAP, [(LDAP_REQUEST, b"220 mail\r\n")], "is no LDAP"),
    (StartTls.LDAP, [(LDAP_REQUEST, bytes.fromhex("3003020101"))], "no extended response"),
    (StartTls.POSTGRESQL, [(SSL_REQUEST, b"N")], "TLS is not enabled"),
    (StartTls.POSTGRESQL, [(SSL_REQUEST, b"E")], "where 'S' is due"),
    (StartTls.POSTGRESQL, [(SSL_REQUEST, b"Sx")], "in clear text"),
    (
        StartTls.XMPP,
        [(STREAM % b"jabber:client", b"<stream:features></stream:features>")],
        "does not offer STARTTLS",
    ),
    (StartTls.XMPP, [(STREAM % b"jabber:client", STREAM_ERROR)], "ends the stream (host-unknown)"),
    (
        StartTls.XMPP,
        [(STREAM % b"jabber:client", FEATURES), (START, b"<failure/>")],
        "refused STARTTLS",
    ),
    (StartTls.FTP, [(b"", b"220 ok\r\n"), (b"AUTH TLS\r\n", b"502 no\r\n")], "'502 no' where 234"),
    (StartTls.FTP, [(b"", b"421 full\r\n")], "'421 full' where 220"),
]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    folder: Path = tmp_path_factory.mktemp("server")
    context.load_cert_chain(*pki.write_server_files(folder, LEAF))
    return context


@contextlib.contextmanager
def serving(
    script: Script, context: ssl.SSLContext, under_tls: Script = (), *, stays: bool = False
) -> Iterator[tuple[int, list[bytes]]]:
    """Serve one connection by a script, then TLS; yield the port and what was not expected."""
    wrong: list[bytes] = []

    def follow(connection: socket.socket, script: Script) -> None:
        for expected, answer in script:
            received = b""
            # No more: a client of MySQL begins TLS without waiting for an answer.
            while missing := len(expected) - len(received):
                if not (part := connection.recv(missing)):
                    break
                received += part
            if received != expected:
                wrong.append(received)
            connection.sendall(answer)

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            follow(connection, script)
            with context.wrap_socket(
                connection, server_side=True, suppress_ragged_eofs=False
            ) as wrapped:
                follow(wrapped, under_tls)
                if under_tls and not stays:
                    wrapped.unwrap()
                elif rest := wrapped.recv(4096):
                    wrong.append(rest)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: serve(listener.accept()[0]), daemon=True)
        thread.start()
        yield listener.getsockname()[1], wrong
        thread.join(timeout=5)


@pytest.mark.parametrize("starttls", AGREEMENTS, ids=str)
def test_a_server_that_agrees(starttls: StartTls, context: ssl.SSLContext) -> None:
    with serving(AGREEMENTS[starttls], context) as (port, _):
        presented = asyncio.run(probe.collect(Target("127.0.0.1", port, HOST, starttls)))
    assert presented.chain == (LEAF.cert,)


@pytest.mark.parametrize(("starttls", "script"), FAREWELLS)
def test_a_server_is_left_as_its_protocol_wants(
    starttls: StartTls, script: Script, context: ssl.SSLContext
) -> None:
    with serving(AGREEMENTS[starttls], context, script) as (port, wrong):
        presented = asyncio.run(probe.collect(Target("127.0.0.1", port, HOST, starttls)))
    assert presented.chain == (LEAF.cert,)
    assert wrong == []


@pytest.mark.parametrize("starttls", [StartTls.IMAP, StartTls.MYSQL])
def test_a_server_that_does_not_take_leave_costs_no_result(
    starttls: StartTls, context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(farewells, "TIMEOUT", 0.05)
    script = dict(FAREWELLS)[starttls][:1]
    with serving(AGREEMENTS[starttls], context, [(script[0][0], b"")], stays=True) as (port, wrong):
        presented = asyncio.run(probe.collect(Target("127.0.0.1", port, HOST, starttls)))
    assert presented.chain == (LEAF.cert,)
    assert wrong == []


def test_a_server_that_floods_its_leave_costs_no_memory(context: ssl.SSLContext) -> None:
    flood = [(b"QUIT\r\n", b"221-" + b"x" * farewells.MOST_BYTES * 4)]
    with serving(AGREEMENTS[StartTls.SMTP], context, flood, stays=True) as (port, _):
        presented = asyncio.run(probe.collect(Target("127.0.0.1", port, HOST, StartTls.SMTP)))
    assert presented.chain == (LEAF.cert,)


@pytest.mark.parametrize(("starttls", "script", "why"), REFUSALS)
def test_a_server_that_does_not(
    starttls: StartTls, script: Script, why: str, context: ssl.SSLContext
) -> None:
    with serving(script, context) as (port, _), pytest.raises(ProbeError) as caught:
        asyncio.run(probe.collect(Target("127.0.0.1", port, HOST, starttls)))
    assert caught.value.outcome is Outcome.STARTTLS_FAILED
    assert why in caught.value.detail


def test_every_protocol_has_a_dialogue_and_a_farewell() -> None:
    assert set(dialogues.DIALOGUES) == set(StartTls) - {StartTls.NONE}
    assert {starttls for starttls, _ in FAREWELLS} == set(dialogues.DIALOGUES)


@pytest.mark.parametrize(
    ("name", "ascii_name"),
    [("straße.example", "xn--strae-oqa.example"), ("BÜCHER.example.", "xn--bcher-kva.example")],
)
def test_names_are_encoded_as_browsers_do(name: str, ascii_name: str) -> None:
    assert a_label(name) == ascii_name
