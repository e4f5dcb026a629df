"""Bytes to and from a peer, and the words in which it is quoted."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from soc.ssl_certs.targets import Target

EXCERPT_BYTES = 64
READ_AT_ONCE = 16 * 1024


async def send(sock: socket.socket, data: bytes) -> None:
    """Send everything.

    A peer that has hung up is not an error here: its last words may still be waiting to be read.
    """
    with contextlib.suppress(OSError):
        await asyncio.get_running_loop().sock_sendall(sock, data)


async def receive(sock: socket.socket) -> bytes:
    """Return what arrives next, b"" when the peer has ended the connection in whatever way."""
    try:
        return await asyncio.get_running_loop().sock_recv(sock, READ_AT_ONCE)
    except OSError:
        return b""


def place_of(target: Target) -> str:
    """Return where a target is, for a sentence."""
    return f"{printable(target.host)} port {target.port}"


def printable(said: str | bytes) -> str:
    """Quote the start of what a peer said (or an operator typed), control characters escaped."""
    return repr(said[:EXCERPT_BYTES]).removeprefix("b")


def os_reason(error: Exception) -> str:
    """Return what the operating system says of an error."""
    if isinstance(error, TimeoutError):
        return "timed out"
    return getattr(error, "strerror", None) or str(error)
