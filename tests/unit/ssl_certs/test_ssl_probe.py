"""The certificate tracker's probe against real sockets and real TLS servers on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

import pki
from soc.ssl_certs import dialogues, probe, streams
from soc.ssl_certs.targets import Outcome, ProbeError, StartTls, Target

HOST = "www.example.org"
ROOT = pki.issue("Test Root", ca=True)
INTERMEDIATE = pki.issue("Test Issuing CA", ROOT, ca=True)
LEAF = pki.issue(HOST, INTERMEDIATE, san=[HOST])

Serve = Callable[[socket.socket], None]


@contextlib.contextmanager
def serving(serve: Serve, address: str = "127.0.0.1") -> Iterator[int]:
    """Hand one connection to `serve` in a thread; yield the port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as listener:
        failures: list[Exception] = []

        def accept() -> None:
            connection, _ = listener.accept()
            with connection:
                try:
                    serve(connection)
                # A peer that hangs up is what half of these tests are about.
                except OSError:
                    pass
                except Exception as error:
                    failures.append(error)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(timeout=5)
        assert not thread.is_alive(), "the probe never connected, or never hung up"
        assert not failures


@pytest.fixture(name="context")
def server_context(tmp_path: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pki.write_server_files(tmp_path, LEAF, INTERMEDIATE))
    return context


def tls(context: ssl.SSLContext) -> Serve:
    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as wrapped:
            wrapped.recv(1)

    return serve


def until_hung_up(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


def says(text: bytes) -> Serve:
    def serve(connection: socket.socket) -> None:
        connection.sendall(text)
        until_hung_up(connection)

    return serve


def drips(text: bytes) -> Serve:
    def serve(connection: socket.socket) -> None:
        for byte in itertools.chain(text, itertools.repeat(0)):
            connection.sendall(bytes([byte]))
            time.sleep(0.05)

    return serve


def collect(port: int, **options: object) -> probe.Presented:
    target = Target(**{"host": "127.0.0.1", "port": port, "server_name": HOST, **options})
    return asyncio.run(probe.collect(target, connect_timeout=2, handshake_timeout=2))


def failure(port: int, *, seconds: float = 2, **options: object) -> ProbeError:
    target = Target(**{"host": "127.0.0.1", "port": port, **options})
    with pytest.raises(ProbeError) as caught:
        asyncio.run(probe.collect(target, connect_timeout=seconds, handshake_timeout=seconds))
    return caught.value


# --- what is presented ---------------------------------------------------------------------------


def test_whole_chain(context: ssl.SSLContext) -> None:
    with serving(tls(context)) as port:
        presented = collect(port)
    assert presented.chain == (LEAF.cert, INTERMEDIATE.cert)
    assert presented.address == "127.0.0.1"
    assert presented.tls_version == "TLSv1.3"
    assert presented.cipher.startswith("TLS_")
    assert 0 < presented.elapsed_ms < 4000
    assert presented.refusal == ""


def test_chain_is_kept_in_the_order_presented(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pki.write_server_files(tmp_path, LEAF, ROOT, INTERMEDIATE))
    with serving(tls(context)) as port:
        assert collect(port).chain == (LEAF.cert, ROOT.cert, INTERMEDIATE.cert)


@pytest.mark.parametrize(
    ("host", "server_name", "sent"),
    [
        ("127.0.0.1", HOST, HOST),
        ("127.0.0.1", HOST + ".", HOST),
        ("127.0.0.1", "bücher.example", "xn--bcher-kva.example"),
        ("localhost", "", "localhost"),
        ("127.0.0.1", "", None),
        ("127.0.0.1", "fe80::7%eth0", None),
    ],
)
def test_server_name(
    host: str, server_name: str, sent: str | None, context: ssl.SSLContext
) -> None:
    seen: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: seen.append(name)
    with serving(tls(context)) as port:
        collect(port, host=host, server_name=server_name)
    assert seen == [sent]


def test_server_sees_a_proper_end(context: ssl.SSLContext) -> None:
    seen: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True, suppress_ragged_eofs=False) as tls:
            seen.append(tls.recv(1))

    with serving(serve) as port:
        collect(port)
    assert seen == [b""]


def test_old_protocol_version(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with serving(tls(context)) as port:
        assert collect(port).tls_version == "TLSv1.1"


def record(kind: int, content: bytes) -> bytes:
    """RFC 5246 section 6.2.1."""
    return bytes([kind]) + b"\x03\x03" + len(content).to_bytes(2, "big") + content


def handshake_message(kind: int, body: bytes) -> bytes:
    return record(22, bytes([kind]) + counted(body))


def counted(data: bytes) -> bytes:
    return len(data).to_bytes(3, "big") + data


def old_server(*chain: bytes) -> bytes:
    """Return what a TLS 1.2 server without RFC 5746 says up to its certificates."""
    # Version, random, no session, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, no compression.
    hello = b"\x03\x03" + bytes(32) + b"\0" + b"\xc0\x2b" + b"\0"
    certificates = counted(b"".join(counted(der) for der in chain))
    return handshake_message(2, hello) + handshake_message(11, certificates)


# RFC 8446 section 6: a fatal handshake_failure.
FATAL_ALERT = record(21, b"\x02\x28")


def test_server_without_secure_renegotiation() -> None:
    with serving(says(old_server(LEAF.cert.public_bytes(Encoding.DER)) + FATAL_ALERT)) as port:
        presented = collect(port)
    assert presented.chain == (LEAF.cert,)
    assert "alert" in presented.refusal


def test_peer_that_ends_after_its_certificates() -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(old_server(LEAF.cert.public_bytes(Encoding.DER)))

    with serving(serve) as port:
        presented = collect(port)
    assert presented.chain == (LEAF.cert,)
    assert presented.tls_version == ""
    assert presented.refusal == "it closed the connection"


def test_certificates_do_not_excuse_a_fault_of_the_handshake() -> None:
    nonsense = handshake_message(12, b"no ServerKeyExchange")
    with serving(says(old_server(LEAF.cert.public_bytes(Encoding.DER)) + nonsense)) as port:
        assert failure(port).outcome is Outcome.HANDSHAKE_FAILED


@pytest.mark.parametrize(
    ("intact", "damaged"),
    # A version that does not exist; a time that is none.
    [(bytes.fromhex("a003020102"), bytes.fromhex("a003020103")), (b"\x17\x0d2", b"\x17\x0dx")],
)
def test_undecodable_certificate(intact: bytes, damaged: bytes) -> None:
    der = LEAF.cert.public_bytes(Encoding.DER).replace(intact, damaged, 1)
    with serving(says(old_server(der) + FATAL_ALERT)) as port:
        error = failure(port)
    assert error.outcome is Outcome.HANDSHAKE_FAILED
    assert "cannot be decoded" in error.detail


def test_undecodable_certificate_that_no_path_needs() -> None:
    intact, damaged = bytes.fromhex("a003020102"), bytes.fromhex("a003020103")
    ders = [issued.cert.public_bytes(Encoding.DER) for issued in (LEAF, INTERMEDIATE, INTERMEDIATE)]
    ders[1] = ders[1].replace(intact, damaged, 1)
    with serving(says(old_server(*ders) + FATAL_ALERT)) as port:
        presented = collect(port)
    assert presented.chain == (LEAF.cert, INTERMEDIATE.cert)
    assert "Certificate 2 of the 3 presented cannot be decoded" in presented.problems[0]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_client_certificate_demanded(version: ssl.TLSVersion, context: ssl.SSLContext) -> None:
    context.maximum_version = version
    context.verify_mode = ssl.CERT_REQUIRED
    with serving(tls(context)) as port:
        presented = collect(port)
    assert presented.chain == (LEAF.cert, INTERMEDIATE.cert)
    broke_off = version is ssl.TLSVersion.TLSv1_2
    assert ("alert" in presented.refusal) is broke_off


def test_ipv6(context: ssl.SSLContext) -> None:
    try:
        with serving(tls(context), "::1") as port:
            assert collect(port, host="::1").address == "::1"
    except OSError:
        pytest.skip("no IPv6 loopback here")


# --- connecting ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["no-such-host.invalid", "", "a..b", "nul\0.example", "x" * 64 + ".example"]
)
def test_name_that_does_not_resolve(host: str) -> None:
    assert failure(443, host=host).outcome is Outcome.RESOLVE_FAILED


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_closed_port() -> None:
    port = closed_port()
    error = failure(port)
    assert error.outcome is Outcome.CONNECT_REFUSED
    assert f"'127.0.0.1' port {port}" in error.detail


@contextlib.contextmanager
def full_listener() -> Iterator[tuple[str, int]]:
    """Yield an address that drops new connections: its queue is full and nobody accepts."""
    with (
        socket.create_server(("127.0.0.2", 0), backlog=0) as listener,
        contextlib.ExitStack() as waiting,
    ):
        address = listener.getsockname()
        for _ in range(3):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(address)
        yield address


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: found)


def test_connect_timeout() -> None:
    with full_listener() as (host, port):
        assert failure(port, host=host, seconds=0.3).outcome is Outcome.CONNECT_TIMEOUT


def test_unreachable() -> None:
    # RFC 1112 class E addresses are never routed.
    assert failure(443, host="255.255.255.255").outcome is Outcome.UNREACHABLE


def test_next_address_is_tried(context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    with full_listener() as silent, serving(tls(context)) as port:
        refusing = ("127.0.0.1", closed_port())
        resolve_to(monkeypatch, refusing, silent, ("127.0.0.1", port))
        assert collect(port, host=HOST).chain[0] == LEAF.cert


def test_most_telling_failure_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with full_listener() as silent:
        resolve_to(monkeypatch, ("255.255.255.255", 443), silent, ("127.0.0.1", closed_port()))
        error = failure(443, host=HOST, seconds=0.6)
    assert error.outcome is Outcome.CONNECT_REFUSED
    assert "255.255.255.255: " in error.detail
    assert "127.0.0.2: timed out" in error.detail


def test_port_out_of_range() -> None:
    with pytest.raises(ValueError, match="65536"):
        Target("127.0.0.1", 65536)


# --- peers that do not shake hands ---------------------------------------------------------------


def test_silence() -> None:
    with serving(until_hung_up) as port:
        assert failure(port, seconds=0.3).outcome is Outcome.HANDSHAKE_TIMEOUT


@pytest.mark.parametrize("starttls", [StartTls.NONE, StartTls.IMAP, StartTls.SMTP])
def test_only_a_silent_mail_server_is_said_to_wait_for_its_resolver(starttls: StartTls) -> None:
    with serving(until_hung_up) as port:
        detail = failure(port, seconds=0.3, starttls=starttls).detail
    assert ("resolver" in detail) is (starttls is StartTls.SMTP)


# The starts of a TLS record of 16 KiB, of a greeting, and of a MySQL packet of 16 MiB.
@pytest.mark.parametrize(
    ("starttls", "start"),
    [
        (StartTls.NONE, b"\x16\x03\x03\x40\x00"),
        (StartTls.SMTP, b"220 "),
        (StartTls.MYSQL, b"\xff\xff\xff\x00"),
    ],
)
def test_dripping_does_not_move_the_deadline(starttls: StartTls, start: bytes) -> None:
    with serving(drips(start)) as port:
        error = failure(port, seconds=0.4, starttls=starttls)
    assert error.outcome is Outcome.HANDSHAKE_TIMEOUT


@pytest.mark.parametrize(
    "text", [b"HTTP/1.0 400 Bad Request\r\n\r\n", b"SSH-2.0-Peer_1.0\r\n", b"220 mail ESMTP\r\n"]
)
def test_not_tls(text: bytes) -> None:
    with serving(says(text)) as port:
        error = failure(port)
    assert error.outcome is Outcome.NOT_TLS
    assert repr(text)[1:12] in error.detail


def hangs_up(connection: socket.socket) -> None:
    connection.close()


def resets(connection: socket.socket) -> None:
    # A reset that overtakes the end of connect() is a refused connection.
    time.sleep(0.1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize("end", [hangs_up, resets])
@pytest.mark.parametrize(
    ("starttls", "outcome"),
    [
        (StartTls.NONE, Outcome.HANDSHAKE_FAILED),
        (StartTls.SMTP, Outcome.STARTTLS_FAILED),
        (StartTls.MYSQL, Outcome.STARTTLS_FAILED),
    ],
)
def test_peer_that_ends(end: Serve, starttls: StartTls, outcome: Outcome) -> None:
    with serving(end) as port:
        error = failure(port, starttls=starttls)
    assert error.outcome is outcome
    assert "closed the connection" in error.detail


def test_last_words_of_a_peer_that_is_gone() -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(b"last words")
    theirs.close()
    ours.setblocking(False)

    async def talk() -> bytes:
        await streams.send(ours, b"too late")
        return await streams.receive(ours)

    with ours:
        assert asyncio.run(talk()) == b"last words"


def test_no_time_left() -> None:
    with serving(until_hung_up) as port, pytest.raises(ProbeError) as caught:
        asyncio.run(probe.collect(Target("127.0.0.1", port), handshake_timeout=0))
    assert caught.value.outcome is Outcome.HANDSHAKE_TIMEOUT


def test_alert() -> None:
    with serving(says(FATAL_ALERT)) as port:
        error = failure(port)
    assert error.outcome is Outcome.HANDSHAKE_FAILED
    assert "handshake failure" in error.detail


def test_a_name_that_the_server_does_not_know() -> None:
    # RFC 6066 section 3: a fatal unrecognized_name.
    with serving(says(record(21, b"\x02\x70"))) as port:
        error = failure(port, server_name=HOST)
    assert error.outcome is Outcome.HANDSHAKE_FAILED
    assert f"was asked for the server name '{HOST}'" in error.detail


def test_silence_where_starttls_is_expected_hints_at_the_protocol() -> None:
    with serving(until_hung_up) as port:
        error = failure(port, seconds=0.2, starttls=StartTls.SMTP)
    assert "it must not be STARTTLS" in error.detail


def test_nonsense_in_a_tls_record() -> None:
    with serving(says(bytes.fromhex("1603030004ffffffff"))) as port:
        assert failure(port).outcome is Outcome.HANDSHAKE_FAILED


@pytest.mark.parametrize("name", ["a..b", ".", "nul\0.example"])
def test_server_name_that_is_no_host_name(name: str) -> None:
    with serving(until_hung_up) as port:
        error = failure(port, server_name=name)
    assert error.outcome is Outcome.HANDSHAKE_FAILED
    assert f"server name {name!r}" in error.detail


# --- STARTTLS ------------------------------------------------------------------------------------


def smtp(
    context: ssl.SSLContext,
    *,
    greeting: bytes = b"220-mail.example\r\n220 ESMTP\r\n",
    ehlo: bytes = b"250-mail.example\r\n250-SIZE 1000\r\n250 starttls\r\n",
    starttls: bytes = b"220 go ahead\r\n",
) -> Serve:
    def serve(connection: socket.socket) -> None:
        with connection.makefile("rb") as lines:
            connection.sendall(greeting)
            for expected, reply in ((b"EHLO [127.0.0.1]\r\n", ehlo), (b"STARTTLS\r\n", starttls)):
                received = lines.readline()
                if not received:
                    return
                assert received == expected
                connection.sendall(reply)
        tls(context)(connection)

    return serve


def test_smtp(context: ssl.SSLContext) -> None:
    with serving(smtp(context)) as port:
        presented = collect(port, starttls=StartTls.SMTP)
    assert presented.chain == (LEAF.cert, INTERMEDIATE.cert)


@pytest.mark.parametrize(
    ("replies", "why"),
    [
        ({"greeting": b"554 go away\r\n"}, "'554 go away' where 220 is due"),
        ({"greeting": b"SSH-2.0-Peer_1.0\r\n"}, "'SSH-2.0-Peer_1.0' where 220 is due"),
        ({"greeting": b"220-half a greeting\r\n554 no\r\n"}, "'554 no' where 220"),
        ({"ehlo": b"250-mail.example\r\n250 SIZE\r\n"}, "does not offer STARTTLS"),
        ({"starttls": b"454 TLS not available\r\n"}, "'454 TLS not available'"),
        ({"starttls": b"220 go ahead\r\n250 injected\r\n"}, "kept talking in clear text"),
        ({"greeting": b"220-more\r\n" * 10_000}, "more than 65536 bytes"),
        ({"greeting": b"2" * 100_000}, "more than 65536 bytes"),
    ],
)
def test_smtp_refused(replies: dict[str, bytes], why: str, context: ssl.SSLContext) -> None:
    with serving(smtp(context, **replies)) as port:
        error = failure(port, starttls=StartTls.SMTP)
    assert error.outcome is Outcome.STARTTLS_FAILED
    assert why in error.detail


@pytest.mark.parametrize(
    ("address", "literal"),
    [("192.0.2.7", "[192.0.2.7]"), ("fe80::7%eth0", "[IPv6:fe80::7]")],
)
def test_address_literal(address: str, literal: str) -> None:
    assert dialogues._address_literal(address) == literal


def greeting_packet(payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "little") + b"\0" + payload


def handshake_v10(capabilities: int) -> bytes:
    fixed = bytes(4) + b"scramble" + b"\0" + capabilities.to_bytes(2, "little") + bytes(31)
    return greeting_packet(b"\x0a5.5.5-11.8.2-MariaDB\0" + fixed)


def test_mysql(context: ssl.SSLContext) -> None:
    requests: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        connection.sendall(handshake_v10(0xF7FE | 0x0800))
        requests.append(connection.recv(36))
        tls(context)(connection)

    with serving(serve) as port:
        presented = collect(port, starttls=StartTls.MYSQL)
    assert presented.chain == (LEAF.cert, INTERMEDIATE.cert)
    header, flags = requests[0][:4], int.from_bytes(requests[0][4:8], "little")
    assert header == b"\x20\0\0\x01"
    assert flags & 0x0800
    assert requests[0][13:] == bytes(23)


@pytest.mark.parametrize(
    ("packet", "why"),
    [
        (handshake_v10(0xF7FE & ~0x0800), "TLS is not enabled"),
        (greeting_packet(b"\xff\x10\x04Too many connections"), "Too many connections'."),
        (greeting_packet(b"\xff\x69\x04Host is blocked"), "FLUSH HOSTS unblocks it"),
        (greeting_packet(b"\xff\x6a\x04Host is not allowed"), "some account, even a locked one"),
        (greeting_packet(b""), "does not greet"),
        (greeting_packet(b"\x0a8.0.1\0short"), "does not greet"),
        (greeting_packet(b"\x098.0.1\0" + bytes(40)), "does not greet"),
        (b"\xff\xff\xff\0" + bytes(100_000), "more than 65536 bytes"),
        (b"220 mail.example ESMTP\r\n" + bytes(100_000), "more than 65536 bytes"),
    ],
)
def test_mysql_refused(packet: bytes, why: str) -> None:
    with serving(says(packet)) as port:
        error = failure(port, starttls=StartTls.MYSQL)
    assert error.outcome is Outcome.STARTTLS_FAILED
    assert why in error.detail
