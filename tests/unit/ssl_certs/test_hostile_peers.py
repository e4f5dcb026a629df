"""Peers that hang, drip, flood and lie, in one batch with a good one: recorded, and no more."""

from __future__ import annotations

import contextlib
import resource
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

import pki
from soc.ssl_certs import scan
from soc.ssl_certs.models import Certificate, Endpoint
from soc.trust.models import Authority

pytestmark = pytest.mark.django_db

ROOT = pki.issue("root", ca=True)
HANGING = 40
FLOOD = 50 * 1024 * 1024
MOST_GROWTH = 64 * 1024
"""KiB by which the process may grow; the flood alone has 50 MiB."""

Serve = Callable[[socket.socket], None]


def record(kind: int, content: bytes) -> bytes:
    """RFC 5246 section 6.2.1."""
    return bytes([kind]) + b"\x03\x03" + len(content).to_bytes(2, "big") + content


def counted(data: bytes) -> bytes:
    return len(data).to_bytes(3, "big") + data


def presenting(der: bytes) -> Serve:
    """A TLS 1.2 server that says everything up to its certificate, and then gives up."""

    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        hello = b"\x03\x03" + bytes(32) + b"\0" + b"\xc0\x2b" + b"\0"
        message = b"\x02" + counted(hello) + b"\x0b" + counted(counted(counted(der)))
        for start in range(0, len(message), 16_000):
            connection.sendall(record(22, message[start : start + 16_000]))
        connection.sendall(record(21, b"\x02\x28"))

    return serve


def tls(issued: pki.Issued, folder: Path) -> Serve:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pki.write_server_files(folder, issued))

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as wrapped:
            wrapped.recv(1)

    return serve


def drips(connection: socket.socket) -> None:
    for byte in b"\x16\x03\x03\x40\x00" + bytes(100):
        connection.sendall(bytes([byte]))
        time.sleep(1)


def floods(connection: socket.socket) -> None:
    for _ in range(FLOOD // 65536):
        connection.sendall(b"220 more\r\n" * 6553)


def floods_with_records(connection: socket.socket) -> None:
    # The start of a certificate message that OpenSSL has to wait for the end of.
    hello = b"\x03\x03" + bytes(32) + b"\0" + b"\xc0\x2b" + b"\0"
    connection.sendall(record(22, b"\x02" + counted(hello) + b"\x0b" + b"\x01\x80\x00"))
    for _ in range(FLOOD // 16_000):
        connection.sendall(record(22, bytes(16_000)))


def certificates() -> dict[str, bytes]:
    names = [f"h{n:04}.x" for n in range(10_000)]
    many = pki.issue("many", ROOT, san=[*names, "peer.internal"])
    nul = pki.issue("peer.internal\0.elsewhere", ROOT, san=["peer.internal"])
    der = pki.issue("peer.internal", ROOT, san=["peer.internal"]).cert.public_bytes(Encoding.DER)
    return {
        "names": many.cert.public_bytes(Encoding.DER),
        "nul": nul.cert.public_bytes(Encoding.DER),
        # A time that is none; a length that leads beyond the end.
        "time": der.replace(b"\x17\x0d2", b"\x17\x0dx", 1),
        "length": der[:1] + b"\x83" + der[2:],
    }


@contextlib.contextmanager
def listening(serve: Serve) -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))

    def guarded(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            serve(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=guarded, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_a_batch_survives_every_kind_of_peer(tmp_path: Path) -> None:
    together = threading.Barrier(HANGING)
    all_hang = threading.Event()

    def hangs(connection: socket.socket) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(timeout=4)
            all_hang.set()
        # Until the probe hangs up.
        while connection.recv(4096):
            pass

    der = certificates()
    peers: dict[str, Serve] = {
        "good": tls(pki.issue("peer.internal", ROOT, san=["peer.internal"]), tmp_path),
        "hang": hangs,
        "drip": drips,
        "flood": floods,
        "records": floods_with_records,
        **{name: presenting(one) for name, one in der.items()},
    }
    authority = Authority.objects.create(name="test", pem=ROOT.cert_pem.decode())
    with contextlib.ExitStack() as stack:
        ports = {name: stack.enter_context(listening(serve)) for name, serve in peers.items()}
        endpoints = {
            name: Endpoint.objects.create(
                host="127.0.0.1", port=port, server_name="peer.internal", authority=authority
            )
            for name, port in ports.items()
        }
        names = [
            Endpoint(host="127.0.0.1", port=ports["hang"], server_name=f"s{n}.internal")
            for n in range(HANGING - 1)
        ]
        Endpoint.objects.bulk_create(names)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        scan.scan(list(Endpoint.objects.order_by("-pk").values_list("pk", flat=True)))
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    found = {name: Endpoint.objects.get(pk=one.pk) for name, one in endpoints.items()}
    assert {name: one.outcome for name, one in found.items()} == {
        "good": "valid",
        "hang": "handshake_timeout",
        "drip": "handshake_timeout",
        "flood": "not_tls",
        "records": "handshake_failed",
        "names": "valid",
        "nul": "valid",
        "time": "handshake_failed",
        "length": "handshake_failed",
    }
    assert len(found["names"].certificate.san) == 10_001
    assert "NUL" in found["nul"].certificate.problems[0]
    assert "\0" not in found["nul"].certificate.subject
    assert all_hang.is_set(), "the hanging peers were not waited for at the same time"
    assert Endpoint.objects.filter(outcome="handshake_timeout").count() == HANGING + 1
    assert Certificate.objects.count() == 3
    assert grown < MOST_GROWTH


def test_names_that_need_more_than_tls_can_carry_are_told() -> None:
    """OpenSSL takes 100 KiB of certificates, as `openssl s_client` does."""
    names = [f"a-rather-long-name-{n:05}.example.org" for n in range(10_000)]
    long = pki.issue("long", ROOT, san=names).cert.public_bytes(Encoding.DER)
    with listening(presenting(long)) as port:
        one = Endpoint.objects.create(host="127.0.0.1", port=port)
        scan.scan([one.pk])
    one.refresh_from_db()
    assert one.outcome == "handshake_failed"
    assert "excessive message size" in one.observations.get().detail
