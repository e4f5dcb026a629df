"""Asks TLS servers for what they must not grant, by a ClientHello of our own making.

An OpenSSL of today cannot even ask for SSL 3 or RC4: what a server would answer to that shows
only if the bytes are written by hand (RFC 5246, 7.4.1; RFC 8446, 4.1.2). Runs beside the stack;
prints, as JSON, what each server answered to each question.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterable

TARGETS = {
    "web": ("web", 8443),
    "flower": ("flower", 5555),
    "amqps": ("rabbitmq", 5671),
    "management": ("rabbitmq", 15671),
    "mariadb": ("mariadb", 3306),
}
VERSIONS = {"SSL 3": 0x0300, "TLS 1.0": 0x0301, "TLS 1.1": 0x0302, "TLS 1.2": 0x0303}
STRONG = {
    0xC02B: "ECDHE-ECDSA-AES128-GCM-SHA256",
    0xC02C: "ECDHE-ECDSA-AES256-GCM-SHA384",
    0xC02F: "ECDHE-RSA-AES128-GCM-SHA256",
    0xC030: "ECDHE-RSA-AES256-GCM-SHA384",
    0xCCA8: "ECDHE-RSA-CHACHA20-POLY1305",
    0xCCA9: "ECDHE-ECDSA-CHACHA20-POLY1305",
}
"""The suites of TLS 1.2 that Mozilla's intermediate profile grants, without finite-field ones."""

# IANA's registry: everything assigned below TLS 1.3 stands in these ranges.
REGISTERED = [*range(0x0001, 0x00C8), *range(0xC001, 0xC0B8), *range(0xCCA8, 0xCCAF)]
GROUPS = (0x001D, 0x0017, 0x0018, 0x0019)
SIGNATURES = (0x0403, 0x0503, 0x0804, 0x0805, 0x0401, 0x0501, 0x0203, 0x0201)


def extension(kind: int, content: bytes) -> bytes:
    return struct.pack(">HH", kind, len(content)) + content


def numbers(values: Iterable[int]) -> bytes:
    packed = b"".join(struct.pack(">H", value) for value in values)
    return struct.pack(">H", len(packed)) + packed


def client_hello(version: int, suites: Iterable[int], host: str) -> bytes:
    name = b"\0" + struct.pack(">H", len(host)) + host.encode()
    extensions = (
        extension(0, struct.pack(">H", len(name)) + name)
        + extension(10, numbers(GROUPS))
        + extension(11, b"\1\0")
        + extension(13, numbers(SIGNATURES))
        # Extended master secret and secure renegotiation, which servers may insist on.
        + extension(23, b"")
        + extension(0xFF01, b"\0")
    )
    body = struct.pack(">H", version) + os.urandom(32) + b"\0" + numbers(suites) + b"\1\0"
    body += struct.pack(">H", len(extensions)) + extensions
    message = b"\1" + struct.pack(">I", len(body))[1:] + body
    return b"\x16" + struct.pack(">HH", min(version, 0x0301), len(message)) + message


def connect(target: str) -> socket.socket:
    peer = socket.create_connection(TARGETS[target], timeout=5)
    if target == "mariadb":
        greeting = peer.recv(1024)
        sequence = greeting[3] + 1
        # SSLRequest: 4.1 protocol, SSL, secure connection (MariaDB's protocol documentation).
        request = struct.pack("<IIB23x", 0x0200 | 0x0800 | 0x8000, 1 << 24, 45)
        peer.sendall(struct.pack("<I", len(request))[:3] + bytes([sequence]) + request)
    return peer


def ask(target: str, version: int, suites: Iterable[int]) -> str:
    """Return what the server chose, or how it refused."""
    with connect(target) as peer:
        peer.sendall(client_hello(version, suites, TARGETS[target][0]))
        answer = b""
        try:
            while len(answer) < 48 and (more := peer.recv(4096)):
                answer += more
                if answer[0] == 0x15 and len(answer) >= 7:
                    break
        except OSError as error:
            return f"refused: {type(error).__name__}"
    if not answer:
        return "refused: closed"
    if answer[0] == 0x15:
        return f"refused: alert {answer[6]}"
    if answer[0] != 0x16 or answer[5] != 2:
        return f"refused: {answer[:8].hex()}"
    session = answer[43]
    (chosen,) = struct.unpack_from(">H", answer, 44 + session)
    return f"version {answer[9]:02x}{answer[10]:02x}, suite {chosen:04x}"


def main() -> None:
    weak = [suite for suite in REGISTERED if suite not in STRONG]
    answers = {
        target: {
            **{
                name: ask(target, version, REGISTERED)
                for name, version in VERSIONS.items()
                if name != "TLS 1.2"
            },
            "weak suites": ask(target, VERSIONS["TLS 1.2"], weak),
            **{name: ask(target, VERSIONS["TLS 1.2"], [suite]) for suite, name in STRONG.items()},
        }
        for target in TARGETS
    }
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
