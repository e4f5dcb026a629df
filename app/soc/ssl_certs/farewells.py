"""How a probe takes its leave after the handshake, so that it leaves as little as it can behind.

A server counts and logs clients that vanish, each in its own way; MariaDB and MySQL even refuse an
address for good after `max_connect_errors` (100) of them. Each protocol is ended as it wants to be.
What is left is shown in docs/certificates.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable

from OpenSSL import SSL

TIMEOUT = 2.0
"""Seconds for a farewell: what was to be seen has been seen."""

MOST_BYTES = 64 * 1024
_READ = 16 * 1024

USER = "soc-certificate-probe"
"""The account that servers log when they refuse it; no server should have one of this name."""


class Encrypted:
    """A bounded reader and writer for what is said under TLS after the handshake."""

    def __init__(
        self,
        connection: SSL.Connection,
        send: Callable[[bytes], Awaitable[None]],
        receive: Callable[[], Awaitable[bytes]],
    ) -> None:
        """Take the connection, and what moves bytes over the socket."""
        self._connection = connection
        self._send, self._receive = send, receive
        self._received = 0

    async def send(self, data: bytes) -> None:
        """Send `data`.

        Raises:
            SSL.Error: the peer has ended TLS.
        """
        self._connection.send(data)
        await self._flush()

    async def exactly(self, size: int) -> bytes:
        """Return the next `size` bytes.

        Raises:
            EOFError, SSL.Error: the peer ends before, or sends too much.
        """
        data = b""
        while len(data) < size:
            data += await self._some(size - len(data))
        return data

    async def end(self) -> None:
        """Read until the peer closes."""
        with contextlib.suppress(EOFError, SSL.Error):
            while True:
                await self._some(_READ)

    async def close(self) -> None:
        """End TLS, so that the peer sees no connection that was cut."""
        with contextlib.suppress(SSL.Error):
            self._connection.shutdown()
        await self._flush()

    async def _some(self, most: int) -> bytes:
        while True:
            try:
                return self._connection.recv(most)
            except SSL.WantReadError:
                await self._flush()
            data = await self._receive()
            self._received += len(data)
            if not data or self._received > MOST_BYTES:
                raise EOFError
            self._connection.bio_write(data)

    async def _flush(self) -> None:
        with contextlib.suppress(SSL.WantReadError):
            while pending := self._connection.bio_read(_READ):
                await self._send(pending)


async def take(peer: Encrypted, farewell: Farewell | None) -> None:
    """End the dialogue, whatever the peer makes of it."""
    if farewell:
        with contextlib.suppress(TimeoutError, EOFError, SSL.Error):
            async with asyncio.timeout(TIMEOUT):
                await farewell(peer)
    await peer.close()


Farewell = Callable[[Encrypted], Awaitable[None]]


def saying(goodbye: bytes) -> Farewell:
    """Return the farewell that says something and waits for the peer to close."""

    async def farewell(peer: Encrypted) -> None:
        await peer.send(goodbye)
        await peer.end()

    return farewell


LDAP_UNBIND = bytes.fromhex("30050201024200")
"""RFC 4511 section 4.3; the message after the StartTLS request, which was the first."""


# --- MySQL and MariaDB --------------------------------------------------------------------------

# Capability flags and packets: MySQL internals manual, "Protocol::HandshakeResponse41" and
# "Protocol::AuthSwitchRequest"; MariaDB documentation, "Connecting".
PROTOCOL_41 = 0x0200
CLIENT_SSL = 0x0800
SECURE_CONNECTION = 0x8000
PLUGIN_AUTH = 0x80000
MAX_PACKET = 1 << 24
UTF8MB4_GENERAL_CI = 45
_OK, _ERROR = 0x00, 0xFF
_QUIT = b"\x01"
_MOST_QUESTIONS = 4


def mysql_flags(flags: int) -> bytes:
    """Return how a client's answer to the greeting begins: flags, packet size and character set."""
    return struct.pack("<IIB23x", flags, MAX_PACKET, UTF8MB4_GENERAL_CI)


async def mysql(peer: Encrypted) -> None:
    """Log in as nobody, and be refused.

    A connection that ends before a login counts as an error of its address, a refused login does
    not.
    """
    flags = PROTOCOL_41 | CLIENT_SSL | SECURE_CONNECTION | PLUGIN_AUTH
    no_password, plugin = b"\0", b"mysql_native_password\0"
    login = mysql_flags(flags) + USER.encode() + b"\0" + no_password + plugin
    # The server's greeting was number 0, the request for TLS number 1.
    await peer.send(_packet(2, login))
    for _ in range(_MOST_QUESTIONS):
        header = await peer.exactly(4)
        answer = await peer.exactly(int.from_bytes(header[:3], "little"))
        kind = answer[0] if answer else _ERROR
        if kind == _ERROR:
            break
        if kind == _OK:
            # The server takes anybody.
            await peer.send(_packet(0, _QUIT))
            break
        # It asks for a password in another way (a switch of the method, or more data).
        await peer.send(_packet((header[3] + 1) % 256, b""))
    await peer.end()


def _packet(number: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "little") + bytes([number]) + payload
