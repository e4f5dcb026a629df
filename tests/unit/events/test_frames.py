"""Frames are cut from what TLS gives, however it is cut itself."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from itertools import pairwise
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from amqp import Message, spec
from amqp.exceptions import UnexpectedFrame
from hypothesis import given
from hypothesis import strategies as st

import pki
from soc.events.frames import _Connection, _Tls

FRAMES = st.lists(st.tuples(st.sampled_from([1, 2, 3, 8]), st.integers(0, 9), st.binary()))


class Socket:
    """Gives pieces one after the other; None is a read that timed out."""

    def __init__(self, pieces: list[bytes | None]) -> None:
        self.pieces = pieces

    def read(self, _: int) -> bytes:
        piece = self.pieces.pop(0)
        if piece is None:
            raise TimeoutError("timed out")
        return piece


def transport(*pieces: bytes | None) -> _Tls:
    made = _Tls.__new__(_Tls)
    made.sock, made.connected = Socket(list(pieces)), True
    return made


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


@given(FRAMES, st.lists(st.integers(0, 400)), st.sets(st.integers(0, 20)))
def test_every_frame_comes_whole(
    frames: list[tuple[int, int, bytes]], cuts: list[int], late: set[int]
) -> None:
    data = b"".join(frame(*one) for one in frames)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces: list[bytes | None] = []
    for number, (start, end) in enumerate(pairwise(edges)):
        if number in late:
            pieces.append(None)
        pieces.append(data[start:end])
    made, read = transport(*pieces), []
    while len(read) < len(frames):
        try:
            read.append(made.read_frame())
        except TimeoutError:
            continue
    assert read == frames
    assert made.connected


def test_a_broker_that_hangs_up_is_an_error() -> None:
    made = transport(frame(1, 0, b"x")[:5], b"")
    with pytest.raises(OSError, match="closed"):
        made.read_frame()
    assert not made.connected


def test_what_is_not_amqp_is_refused() -> None:
    with pytest.raises(UnexpectedFrame):
        transport(struct.pack(">BHI", 1, 0, 1) + b"xx").read_frame()


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-8", "gzip"])
def test_a_body_stays_bytes_whatever_its_content_encoding(encoding: str) -> None:
    channel = _Connection.Channel(MagicMock(confirm_publish=False), 1)
    message, came = Message(content_encoding=encoding), []
    message.body = "Prüfung!".encode()
    channel.callbacks["tag"] = came.append
    delivery = struct.pack(">HH", *spec.Basic.Deliver) + b"\x03tag" + bytes(7) + b"\1" + bytes(3)
    channel.dispatch_method(spec.Basic.Deliver, delivery, message)
    assert [one.body for one in came] == ["Prüfung!".encode()]


def test_frames_come_over_tls_as_a_broker_sends_them(tmp_path: Path) -> None:
    """A thousand at once, then none until the reader has waited in vain, then one in two halves."""
    authority = pki.issue("broker test", ca=True)
    leaf = pki.issue("localhost", authority, san=["localhost"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*pki.write_server_files(tmp_path, leaf))
    listener = socket.create_server(("127.0.0.1", 0))
    waited = threading.Event()

    def serve() -> None:
        with context.wrap_socket(listener.accept()[0], server_side=True) as peer:
            assert peer.recv(8) == b"AMQP\0\0\x09\x01"
            peer.sendall(b"".join(frame(3, 1, b"x" * number) for number in range(1000)))
            waited.wait(10)
            last = frame(8, 0, b"last")
            peer.sendall(last[:9])
            peer.sendall(last[9:])

    server = threading.Thread(target=serve)
    server.start()
    options = {"ca_certs": str(pki.write_bundle(tmp_path / "ca.pem", authority))}
    options |= {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": "localhost"}
    # As py-amqp's connection calls it.
    made = _Connection().Transport(
        f"localhost:{listener.getsockname()[1]}", 5, options, None, None, socket_settings=None
    )
    made.connect()
    for number in range(1000):
        with made.having_timeout(5):
            assert made.read_frame() == (3, 1, b"x" * number)
    with pytest.raises(TimeoutError), made.having_timeout(0.05):
        made.read_frame()
    waited.set()
    with made.having_timeout(5):
        assert made.read_frame() == (8, 0, b"last")
    with pytest.raises(OSError, match="closed"), made.having_timeout(5):
        made.read_frame()
    server.join()
    listener.close()
    made.close()
