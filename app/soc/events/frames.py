"""The way from the broker for those who read thousands of messages a second.

For a message py-amqp reads nine times from TLS and sets a timeout six times. Each time it gives up
the interpreter's lock, which another thread then holds for a while. Here a whole record of TLS is
read and cut into its frames (AMQP 0-9-1, section 2.3.5).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from struct import unpack_from
from typing import Any

from amqp.exceptions import UnexpectedFrame
from amqp.transport import SSLTransport
from kombu.transport import pyamqp

_HEAD, _LAST = 7, 0xCE
_PIECE = 1 << 17
"""Bytes asked for at once: TLS gives 16 KB at most, and fewer if there are no more."""


class _Tls(SSLTransport):
    """py-amqp's transport with frames cut from large pieces."""

    _piece = b""
    _place = 0

    @contextmanager
    def having_timeout(self, timeout: float | None) -> Iterator[Any]:
        """Set the timeout of reading only if there is something to wait for."""
        if self._end():
            yield self.sock
        else:
            with super().having_timeout(timeout) as sock:
                yield sock

    def read_frame(self, unpack: Any = None) -> tuple[int, int, bytes]:
        """Return type, channel and payload of the next frame.

        What has come of it stays where it is if the rest takes too long.

        Raises:
            OSError: the connection is lost, or nothing came in time.
            UnexpectedFrame: this is not AMQP.
        """
        while not (end := self._end()):
            more = self._more()
            self._piece, self._place = self._piece[self._place :] + more, 0
        piece, place = self._piece, self._place
        if piece[end] != _LAST:
            raise UnexpectedFrame(f"A frame ends with {piece[end]:#04x}")
        kind, channel = unpack_from(">BH", piece, place)
        self._place = end + 1
        return kind, channel, piece[place + _HEAD : end]

    def _end(self) -> int:
        """Return where the next frame's last byte stands, 0 if it has not come."""
        piece, place = self._piece, self._place
        if len(piece) < place + _HEAD:
            return 0
        end = place + _HEAD + unpack_from(">I", piece, place + 3)[0]
        return end if len(piece) > end else 0

    def _more(self) -> bytes:
        try:
            more: bytes = self.sock.read(_PIECE)
        except TimeoutError:
            raise
        except OSError:
            self.connected = False
            raise
        if not more:
            self.connected = False
            raise OSError("Server unexpectedly closed connection")
        return more


class _Channel(pyamqp.Channel):
    """kombu's channel that leaves bodies as the bytes that came.

    py-amqp decodes a body by ``content_encoding`` as if that named a character set. JSON is UTF-8
    whatever the property says (RFC 8259, section 8.1): "latin-1" would turn it into mojibake.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.auto_decode = False


class _Connection(pyamqp.Connection):
    """kombu's connection on our transport."""

    Channel = _Channel

    def Transport(  # noqa: N802
        self, host: str, connect_timeout: float, ssl: Any, *timeouts: float, **options: Any
    ) -> _Tls:
        """Return the transport; there is none without TLS."""
        options |= zip(("read_timeout", "write_timeout"), timeouts, strict=True)
        return _Tls(host, connect_timeout, ssl, **options)


class FrameTransport(pyamqp.Transport):
    """kombu's transport with our connection."""

    Connection = _Connection
