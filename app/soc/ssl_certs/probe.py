"""Connect to one TLS endpoint and bring back the certificates it presents, trusted or not.

The handshake verifies nothing: a tracker has to see the expired, foreign and weak certificates
too. What was presented is judged afterwards, by `chain.verify`.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import re
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from cryptography import x509

# What a peer may say in clear text before TLS. The longest honest dialogue, an EHLO reply with
# every extension, stays below 2 KiB.
MAX_CLEAR_BYTES = 64 * 1024


class StartTls(StrEnum):
    """The protocol that is spoken before TLS starts."""

    NONE = ""
    SMTP = "smtp"
    MYSQL = "mysql"


class Outcome(StrEnum):
    """Why no certificate could be collected."""

    RESOLVE_FAILED = "resolve_failed"
    CONNECT_REFUSED = "connect_refused"
    CONNECT_TIMEOUT = "connect_timeout"
    UNREACHABLE = "unreachable"
    HANDSHAKE_TIMEOUT = "handshake_timeout"
    NOT_TLS = "not_tls"
    HANDSHAKE_FAILED = "handshake_failed"
    STARTTLS_FAILED = "starttls_failed"


class ProbeError(Exception):
    """The probe brought nothing back; `detail` is one sentence for the operator."""

    def __init__(self, outcome: Outcome, detail: str) -> None:
        """Take what happened, and the sentence that says so."""
        super().__init__(f"{outcome}: {detail}")
        self.outcome = outcome
        self.detail = detail


@dataclass(frozen=True)
class Target:
    """One endpoint: where to connect, and as whom to address it.

    `server_name` is the name sent as SNI and verified later; empty means `host`.
    """

    host: str
    port: int
    server_name: str = ""
    starttls: StartTls = StartTls.NONE

    def __post_init__(self) -> None:
        """Raise ValueError for a port that cannot exist."""
        if not 0 < self.port < 65536:
            raise ValueError(f"port {self.port} is not between 1 and 65535")

    @property
    def name(self) -> str:
        """The name the certificate has to match."""
        return self.server_name or self.host


@dataclass(frozen=True)
class Presented:
    """What an endpoint presented: `chain` has the leaf first, in the order it was sent.

    `refusal` is empty after a complete handshake. Otherwise the peer presented its chain and broke
    off (TLS 1.2 and older do so when they demand a client certificate): the chain was seen, but
    the peer has not proven that it holds the key, and `tls_version` is empty.
    """

    address: str
    tls_version: str
    cipher: str
    chain: tuple[x509.Certificate, ...]
    elapsed_ms: int
    refusal: str = ""


def collect(
    target: Target, *, connect_timeout: float = 5.0, handshake_timeout: float = 5.0
) -> Presented:
    """Connect to `target`, start TLS and return what it presents.

    `connect_timeout` (seconds) covers all addresses of the host together, `handshake_timeout`
    (seconds) the STARTTLS dialogue and the handshake together; neither grows when the peer drips
    bytes. Resolving the name blocks as long as the system's resolver does: resolv.conf(5) sets
    that, and the caller's own time limit ends it.

    Raises ProbeError, and nothing else, when no certificate could be collected.
    """
    started = time.monotonic()
    sock, address = _connect(target, _Deadline(connect_timeout))
    with sock:
        deadline = _Deadline(handshake_timeout)
        try:
            if target.starttls:
                _DIALOGUES[target.starttls](_Clear(sock, deadline, _at(target)))
            tls, refusal = _handshake(sock, target, deadline)
        except TimeoutError:
            raise ProbeError(
                Outcome.HANDSHAKE_TIMEOUT,
                f"{_at(target)} accepted the connection but did not complete the handshake within"
                f" {handshake_timeout:g} s: look at the service behind it.",
            ) from None
    cipher = tls.cipher()
    return Presented(
        address=address,
        tls_version=tls.version() or "",
        cipher=cipher[0] if cipher else "",
        chain=_certificates(tls, target, refusal),
        elapsed_ms=round((time.monotonic() - started) * 1000),
        refusal=refusal,
    )


def a_label(name: str) -> str:
    """Return a host name in lower-case ASCII, without a final dot.

    Letters outside ASCII become A-labels (IDNA 2003, RFC 3490, as in Python's resolver calls).
    Raises ValueError when `name` cannot be a host name.
    """
    ascii_name = name.removesuffix(".").encode("idna").decode("ascii").lower()
    if not ascii_name or not ascii_name.isprintable():
        raise ValueError("not a host name")
    return ascii_name


class _Deadline:
    """A point in time that no amount of traffic moves."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def remaining(self) -> float:
        """Return the seconds left, more than 0, or raise TimeoutError."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


# --- connect ---------------------------------------------------------------------------------

# When every address fails, the failure that says most about the service is the one reported:
# hence the order.
_CONNECT_ADVICE = {
    Outcome.CONNECT_REFUSED: "nothing listens there, or a firewall rejects it",
    Outcome.CONNECT_TIMEOUT: "look for a host that is down or a firewall that drops packets",
    Outcome.UNREACHABLE: "look at the route from this server",
}


def _connect(target: Target, deadline: _Deadline) -> tuple[socket.socket, str]:
    """Return a socket and the address that it is connected to."""
    addresses = _resolve(target)
    failures: list[tuple[Outcome, str]] = []
    for position, (family, address) in enumerate(addresses):
        try:
            # An even share each: a first address that swallows packets must leave time for the
            # second.
            share = deadline.remaining() / (len(addresses) - position)
            return _connect_one(family, address, share), address[0]
        except OSError as error:
            failures.append((_connect_outcome(error), f"{address[0]}: {_os_reason(error)}"))
    outcome = min((failure for failure, _ in failures), key=list(_CONNECT_ADVICE).index)
    tried = "; ".join(text for _, text in failures)
    raise ProbeError(
        outcome, f"No connection to {_at(target)} ({tried}): {_CONNECT_ADVICE[outcome]}."
    )


def _resolve(target: Target) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, ValueError, OverflowError) as error:
        # ValueError: not a host name at all (an empty or overlong label, a NUL character).
        raise ProbeError(
            Outcome.RESOLVE_FAILED,
            f"The name {_printable(target.host)} does not resolve ({_os_reason(error)}):"
            " look at its spelling and at the DNS.",
        ) from error
    return [(family, address) for family, _, _, _, address in found]


def _connect_one(
    family: socket.AddressFamily, address: tuple[str, int], seconds: float
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(seconds)
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _connect_outcome(error: OSError) -> Outcome:
    # Refused, or reset in the same instant, which is how some firewalls refuse.
    if isinstance(error, ConnectionError):
        return Outcome.CONNECT_REFUSED
    return Outcome.CONNECT_TIMEOUT if isinstance(error, TimeoutError) else Outcome.UNREACHABLE


# --- TLS -------------------------------------------------------------------------------------

# RFC 8446 section 5.1: a record starts with its type (20 to 23) and the major version 3.
_TLS_RECORD = re.compile(rb"[\x14-\x17]\x03")
_EXCERPT_BYTES = 64


@functools.cache
def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # A weak endpoint has to be seen before anybody can be told to replace it: allow every version,
    # cipher and key size that this OpenSSL was built with. Nothing confidential is ever sent.
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.set_ciphers("ALL:!aNULL:!eNULL:@SECLEVEL=0")
    # SSL_OP_LEGACY_SERVER_CONNECT: servers without RFC 5746; Python names it from 3.12 on.
    context.options |= 0x4
    return context


def _handshake(
    sock: socket.socket, target: Target, deadline: _Deadline
) -> tuple[ssl.SSLObject, str]:
    """Run the handshake; return the TLS state and why the peer broke off, "" if it did not.

    Memory buffers stand between TLS and the socket because they keep the peer's first bytes, which
    tell an operator what answers there if it is not TLS.
    """
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = _context().wrap_bio(incoming, outgoing, server_hostname=_sni(target))
    excerpt = b""
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            _send(sock, outgoing.read(), deadline)
            received = _receive(sock, deadline)
            excerpt = (excerpt + received)[:_EXCERPT_BYTES]
            if received:
                incoming.write(received)
            else:
                incoming.write_eof()
        except ssl.SSLError as error:
            return tls, _refusal(error, excerpt, target)
    # Close properly, so that probes leave no errors in the server's log. Whatever becomes of that
    # (unwrap would wait for the peer's answer, the deadline may be reached), the chain is here.
    with contextlib.suppress(ssl.SSLError):
        tls.unwrap()
    with contextlib.suppress(TimeoutError):
        _send(sock, outgoing.read(), deadline)
    return tls, ""


def _sni(target: Target) -> str | None:
    """RFC 6066 section 3: a host name without the final dot, never an IP address."""
    try:
        ipaddress.ip_address(target.name)
        return None
    except ValueError:
        pass
    try:
        return a_label(target.name)
    except ValueError as error:
        raise ProbeError(
            Outcome.HANDSHAKE_FAILED,
            f"The server name {_printable(target.name)} of {_at(target)} is not a host name"
            f" ({error}): correct it.",
        ) from error


def _refusal(error: ssl.SSLError, excerpt: bytes, target: Target) -> str:
    """Return what made the peer break off; raise ProbeError if it was not the peer's doing."""
    if excerpt and not _TLS_RECORD.match(excerpt):
        raise ProbeError(
            Outcome.NOT_TLS,
            f"{_at(target)} does not speak TLS, it answered {_printable(excerpt)}:"
            " look at the port and at the STARTTLS setting.",
        ) from error
    if isinstance(error, ssl.SSLEOFError):
        return "it closed the connection"
    reason = (error.reason or str(error)).replace("_", " ").lower()
    if "alert" in reason:
        return reason
    raise ProbeError(
        Outcome.HANDSHAKE_FAILED,
        f"The TLS handshake with {_at(target)} failed ({reason}):"
        " look at the protocol versions and ciphers it offers.",
    ) from error


def _certificates(tls: ssl.SSLObject, target: Target, refusal: str) -> tuple[x509.Certificate, ...]:
    presented = _unverified_chain(tls)
    if not presented:
        raise ProbeError(
            Outcome.HANDSHAKE_FAILED,
            f"{_at(target)} broke off the TLS handshake before it presented a certificate"
            f" ({refusal or 'none was sent'}): look at its protocol versions, its ciphers and the"
            " server name.",
        )
    try:
        return tuple(x509.load_der_x509_certificate(der) for der in presented)
    except (ValueError, x509.InvalidVersion) as error:
        raise ProbeError(
            Outcome.HANDSHAKE_FAILED,
            f"{_at(target)} presents a certificate that cannot be decoded ({error}): replace it.",
        ) from error


def _unverified_chain(tls: ssl.SSLObject) -> list[bytes]:
    """Return the presented certificates as DER, leaf first."""
    if sys.version_info >= (3, 13):
        return tls.get_unverified_chain()
    # The method is public from Python 3.13 on. In 3.10 to 3.12 the C object beneath has it, and
    # nothing public returns more than the leaf.
    chain = tls._sslobj.get_unverified_chain() or []
    return [ssl.PEM_cert_to_DER_cert(certificate.public_bytes()) for certificate in chain]


# --- what is said in clear text before TLS -----------------------------------------------------


class _Clear:
    """A bounded reader and writer for the dialogue that leads to TLS."""

    def __init__(self, sock: socket.socket, deadline: _Deadline, peer: str) -> None:
        self._sock = sock
        self._deadline = deadline
        self._peer = peer
        self._buffer = b""
        self._received = 0

    def send(self, data: bytes) -> None:
        _send(self._sock, data, self._deadline)

    def line(self) -> str:
        """Return the next line without its end."""
        while b"\n" not in self._buffer:
            self._fill()
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.rstrip(b"\r").decode("ascii", "replace")

    def exactly(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        while len(self._buffer) < size:
            self._fill()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def finish(self) -> None:
        """Make sure that TLS is the next thing said.

        Clear text behind the agreement could pass for something said under TLS: RFC 3207 section 6.
        """
        if self._buffer:
            raise self.failed("it kept talking in clear text after it agreed to TLS")

    def failed(self, reason: str) -> ProbeError:
        return ProbeError(
            Outcome.STARTTLS_FAILED,
            f"{self._peer} did not start TLS: {reason}.",
        )

    def local_address(self) -> str:
        return self._sock.getsockname()[0]

    def _fill(self) -> None:
        received = _receive(self._sock, self._deadline)
        if not received:
            raise self.failed("it closed the connection")
        self._received += len(received)
        if self._received > MAX_CLEAR_BYTES:
            raise self.failed(f"it sent more than {MAX_CLEAR_BYTES} bytes of clear text")
        self._buffer += received


def _smtp_dialogue(clear: _Clear) -> None:
    """Greeting, EHLO and STARTTLS: RFC 3207 section 4, replies as in RFC 5321 section 4.2."""
    _smtp_reply(clear, "220")
    clear.send(f"EHLO {_address_literal(clear.local_address())}\r\n".encode("ascii"))
    offered = _smtp_reply(clear, "250")
    if "STARTTLS" not in (extension.strip().upper() for extension in offered):
        raise clear.failed("it does not offer STARTTLS in its EHLO reply")
    clear.send(b"STARTTLS\r\n")
    _smtp_reply(clear, "220")
    clear.finish()


def _smtp_reply(clear: _Clear, expected: str) -> list[str]:
    """Return the text of a reply line by line, or raise when its code is not the expected one."""
    texts = []
    while True:
        line = clear.line()
        texts.append(line[4:])
        if line[:3] != expected:
            raise clear.failed(f"it answered {_printable(line)} where {expected} is due")
        if line[3:4] != "-":
            return texts


def _address_literal(address: str) -> str:
    """RFC 5321 section 4.1.3: how a client without a domain name introduces itself."""
    bare = address.partition("%")[0]
    return f"[IPv6:{bare}]" if ":" in bare else f"[{bare}]"


# Capability flags and packets: MySQL internals manual, "Protocol::HandshakeV10" and
# "Protocol::SSLRequest"; MariaDB documentation, "Connecting" in the client/server protocol.
_CLIENT_PROTOCOL_41 = 0x0200
_CLIENT_SSL = 0x0800
_CLIENT_SECURE_CONNECTION = 0x8000
_MYSQL_PROTOCOL = 10
_MYSQL_ERROR = 0xFF
_MAX_PACKET = 1 << 24
_UTF8MB4_GENERAL_CI = 45


def _mysql_dialogue(clear: _Clear) -> None:
    """Read the initial handshake packet and answer with an SSLRequest packet.

    A packet is a 3-byte little-endian length, a sequence number and the payload.
    """
    header = clear.exactly(4)
    greeting = clear.exactly(int.from_bytes(header[:3], "little"))
    if not _mysql_capabilities(clear, greeting) & _CLIENT_SSL:
        raise clear.failed("TLS is not enabled in this MySQL or MariaDB server")
    request = struct.pack(
        "<IIB23x",
        _CLIENT_PROTOCOL_41 | _CLIENT_SSL | _CLIENT_SECURE_CONNECTION,
        _MAX_PACKET,
        _UTF8MB4_GENERAL_CI,
    )
    sequence = (header[3] + 1) % 256
    clear.send(len(request).to_bytes(3, "little") + bytes([sequence]) + request)
    clear.finish()


def _mysql_capabilities(clear: _Clear, greeting: bytes) -> int:
    """Return the lower 16 capability flags of an initial handshake packet's payload."""
    if greeting[:1] == bytes([_MYSQL_ERROR]):
        # An error packet: type, 2 bytes of error number, text.
        raise clear.failed(f"it answered {_printable(greeting[3:])}")
    # Protocol version; server version up to a NUL; thread id (4), scramble (8), filler (1).
    _version, terminator, rest = greeting[1:].partition(b"\0")
    if greeting[:1] != bytes([_MYSQL_PROTOCOL]) or not terminator or len(rest) < 15:
        raise clear.failed(f"it does not greet as MySQL or MariaDB do: {_printable(greeting)}")
    return int.from_bytes(rest[13:15], "little")


_DIALOGUES: dict[StartTls, Callable[[_Clear], None]] = {
    StartTls.SMTP: _smtp_dialogue,
    StartTls.MYSQL: _mysql_dialogue,
}


# --- bytes and words -----------------------------------------------------------------------------


def _send(sock: socket.socket, data: bytes, deadline: _Deadline) -> None:
    """Send everything before the deadline.

    A peer that has hung up is not an error here: its last words may still be waiting to be read.
    """
    sock.settimeout(deadline.remaining())
    with contextlib.suppress(ConnectionError):
        sock.sendall(data)


def _receive(sock: socket.socket, deadline: _Deadline) -> bytes:
    """Return what arrives next, b"" when the peer has ended the connection in whatever way."""
    sock.settimeout(deadline.remaining())
    try:
        return sock.recv(16 * 1024)
    except TimeoutError:
        raise
    except OSError:
        return b""


def _at(target: Target) -> str:
    return f"{_printable(target.host)} port {target.port}"


def _printable(said: str | bytes) -> str:
    """Quote the start of what a peer said (or an operator typed), control characters escaped."""
    return repr(said[:_EXCERPT_BYTES]).removeprefix("b")


def _os_reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
