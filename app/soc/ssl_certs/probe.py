"""Connect to TLS endpoints and bring back the certificates they present, trusted or not.

The handshake verifies nothing: a tracker has to see the expired, foreign and weak certificates
too. What was presented is judged afterwards, by `chain.verify`.

One thread waits for all peers. Handshakes go through pyOpenSSL: it is a quarter faster than the
standard library, returns the whole chain by a public call, and hands out a stapled OCSP response.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import logging
import queue
import re
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar, cast

from cryptography import x509
from OpenSSL import SSL

from soc.common.net import a_label
from soc.ssl_certs import farewells
from soc.ssl_certs.farewells import Encrypted, Farewell
from soc.ssl_certs.targets import StartTls, Target

logger = logging.getLogger(__name__)

AT_ONCE = 256
"""Endpoints that are waited for at the same time; each costs some 150 KiB at most."""

RESOLVE_TIMEOUT = 10.0
"""Seconds for the system's resolver; two of its own attempts of 5 s, as resolv.conf(5) has it."""

# The resolver blocks a thread for each name; its threads count against the container's limit.
_RESOLVERS = 24

# What a peer may say in clear text before TLS. The longest honest dialogue, an EHLO reply with
# every extension, stays below 2 KiB.
MAX_CLEAR_BYTES = 64 * 1024

# What a peer may send in a handshake: OpenSSL takes certificates of 100 KiB in all.
MAX_HANDSHAKE_BYTES = 256 * 1024

Key = TypeVar("Key")


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
    TIMEOUT = "timeout"
    DEFECT = "defect"


class ProbeError(Exception):
    """The probe brought nothing back; `detail` is one sentence for the operator."""

    def __init__(self, outcome: Outcome, detail: str) -> None:
        """Take what happened, and the sentence that says so."""
        super().__init__(f"{outcome}: {detail}")
        self.outcome = outcome
        self.detail = detail


@dataclass(frozen=True)
class Presented:
    """What an endpoint presented: `chain` has the leaf first, in the order it was sent.

    `refusal` is empty after a complete handshake. Otherwise the peer presented its chain and broke
    off (TLS 1.2 and older do so when they demand a client certificate): the chain was seen, but
    the peer has not proven that it holds the key, and `tls_version` is empty. `staple` is the OCSP
    response that came with the certificate (DER, RFC 6066 section 8), or empty. `problems` are
    sentences about certificates of the chain that could not be decoded and are not in `chain`.
    """

    address: str
    tls_version: str
    cipher: str
    chain: tuple[x509.Certificate, ...]
    elapsed_ms: int
    refusal: str = ""
    staple: bytes = b""
    problems: tuple[str, ...] = ()


def collect_many(
    targets: Mapping[Key, Target], *, at_once: int = AT_ONCE
) -> Generator[tuple[Key, Presented | ProbeError]]:
    """Yield the result of each target as soon as it is there.

    A thread of its own waits for the peers, so that the caller can verify and store what has come
    while others still shake hands. Anyone who stops early ends the rest.
    """
    results: queue.SimpleQueue[tuple[Key, Presented | ProbeError]] = queue.SimpleQueue()
    loop = asyncio.new_event_loop()
    work = loop.create_task(_collect_all(targets, results, at_once))
    thread = threading.Thread(target=_run, args=(loop, work), name="probes", daemon=True)
    thread.start()
    try:
        for _ in targets:
            yield results.get()
    finally:
        loop.call_soon_threadsafe(work.cancel)
        thread.join()
        loop.close()


def _run(loop: asyncio.AbstractEventLoop, work: asyncio.Task[None]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        loop.run_until_complete(work)


async def _collect_all(
    targets: Mapping[Key, Target],
    results: queue.SimpleQueue[tuple[Key, Presented | ProbeError]],
    at_once: int,
) -> None:
    waiting = iter(targets.items())

    async def work() -> None:
        for key, target in waiting:
            results.put((key, await _result(target)))

    async with asyncio.TaskGroup() as group:
        for _ in range(min(at_once, len(targets))):
            group.create_task(work())


async def _result(target: Target) -> Presented | ProbeError:
    try:
        return await collect(target)
    except ProbeError as error:
        return error
    # One peer that finds a defect of ours must not cost all the others their scan.
    except Exception as error:
        logger.exception("The probe of %s failed", _at(target))
        return ProbeError(Outcome.DEFECT, f"The probe itself failed ({error!r}): see the log.")


async def collect(
    target: Target, *, connect_timeout: float = 5.0, handshake_timeout: float = 5.0
) -> Presented:
    """Connect to `target`, start TLS and return what it presents.

    `connect_timeout` (seconds) covers all addresses of the host together, `handshake_timeout`
    (seconds) the STARTTLS dialogue and the handshake together; neither grows when the peer drips
    bytes.

    Raises ProbeError, and nothing else, when no certificate could be collected.
    """
    started = time.monotonic()
    sock, address = await _connect(target, connect_timeout)
    with sock:
        try:
            async with asyncio.timeout(handshake_timeout):
                if target.starttls:
                    await _DIALOGUES[target.starttls](_Clear(sock, target))
                connection, staple, refusal = await _handshake(sock, target)
            elapsed_ms = round((time.monotonic() - started) * 1000)
            if not refusal:
                await _take_leave(connection, sock, target)
        except TimeoutError:
            raise ProbeError(
                Outcome.HANDSHAKE_TIMEOUT,
                f"{_at(target)} accepted the connection but did not complete the handshake within"
                f" {handshake_timeout:g} s: {_SILENCE[bool(target.starttls)]}.",
            ) from None
    chain, problems = _certificates(connection, target, refusal)
    return Presented(
        address=address,
        tls_version="" if refusal else connection.get_protocol_version_name(),
        cipher="" if refusal else connection.get_cipher_name() or "",
        chain=chain,
        elapsed_ms=elapsed_ms,
        refusal=refusal,
        staple=staple,
        problems=problems,
    )


_ALERTS = ("sslv3 ", "tlsv1 ", "tlsv13 ")
"""How OpenSSL's words for an alert of the peer begin; not all of them say "alert"."""

_SILENCE = {
    True: "look at the protocol (a port that speaks TLS from the first byte waits for the client,"
    " so it must not be STARTTLS) and at the service behind it",
    False: "look at the service behind it, and at the protocol if it wants STARTTLS",
}
"""What to look at when a peer says nothing, by whether a greeting or STARTTLS was waited for."""


# --- TCP -----------------------------------------------------------------------------------------

# When every address fails, the failure that says most about the service is the one reported:
# hence the order.
_CONNECT_ADVICE = {
    Outcome.CONNECT_REFUSED: "nothing listens there, or a firewall rejects it",
    Outcome.CONNECT_TIMEOUT: "look for a host that is down or a firewall that drops packets",
    Outcome.UNREACHABLE: "look at the route from this server",
}

Address = tuple[socket.AddressFamily, tuple[str, int]]


async def _connect(target: Target, seconds: float) -> tuple[socket.socket, str]:
    """Return a socket and the address that it is connected to."""
    addresses = await resolve(target)
    end = time.monotonic() + seconds
    failures: list[tuple[Outcome, str]] = []
    for position, (family, address) in enumerate(addresses):
        # An even share each: a first address that swallows packets must leave time for the
        # second.
        share = (end - time.monotonic()) / (len(addresses) - position)
        try:
            return await _connect_one(family, address, share), address[0]
        except OSError as error:
            failures.append((_connect_outcome(error), f"{address[0]}: {_os_reason(error)}"))
    outcome = min((failure for failure, _ in failures), key=list(_CONNECT_ADVICE).index)
    tried = "; ".join(text for _, text in failures)
    raise ProbeError(
        outcome, f"No connection to {_at(target)} ({tried}): {_CONNECT_ADVICE[outcome]}."
    )


async def resolve(target: Target) -> list[Address]:
    """Return the addresses of a target's host.

    Raises ProbeError when there are none.
    """
    try:
        return _look_up(target.host, target.port, socket.AI_NUMERICHOST)
    except (OSError, ValueError, OverflowError):
        pass
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT):
            name = a_label(target.host)
            return await loop.run_in_executor(_resolvers(), _look_up, name, target.port)
    except (OSError, ValueError, OverflowError) as error:
        # ValueError: not a host name at all (an empty or overlong label, a NUL character).
        raise ProbeError(
            Outcome.RESOLVE_FAILED,
            f"The name {_printable(target.host)} does not resolve ({_os_reason(error)}):"
            " look at its spelling and at the DNS.",
        ) from error


def _look_up(host: str, port: int, flags: int = 0) -> list[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    # Python without IPv6 would give (int, bytes); an IPv6 address has four parts.
    return [(family, cast("tuple[str, int]", address)) for family, *_, address in found]


@functools.cache
def _resolvers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_RESOLVERS, thread_name_prefix="resolver")


async def _connect_one(
    family: socket.AddressFamily, address: tuple[str, int], seconds: float
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        # The few small messages of a handshake must not wait for each other's acknowledgements.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.timeout(seconds):
            await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


def _connect_outcome(error: OSError) -> Outcome:
    # Refused, or reset in the same instant, which is how some firewalls refuse.
    if isinstance(error, ConnectionError):
        return Outcome.CONNECT_REFUSED
    return Outcome.CONNECT_TIMEOUT if isinstance(error, TimeoutError) else Outcome.UNREACHABLE


# --- TLS -----------------------------------------------------------------------------------------

# RFC 8446 section 5.1: a record starts with its type (20 to 23) and the major version 3.
_TLS_RECORD = re.compile(rb"[\x14-\x17]\x03")
_EXCERPT_BYTES = 64
_READ = 16 * 1024

# SSL_OP_LEGACY_SERVER_CONNECT: servers without RFC 5746; pyOpenSSL has no name for it.
_LEGACY_SERVER_CONNECT = 0x4


@functools.cache
def _context() -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_verify(SSL.VERIFY_NONE)
    # A weak endpoint has to be seen before anybody can be asked to replace it: allow every version,
    # cipher and key size that this OpenSSL was built with. Nothing confidential is ever sent.
    context.set_min_proto_version(0)
    context.set_cipher_list(b"ALL:!aNULL:!eNULL:@SECLEVEL=0")
    context.set_options(_LEGACY_SERVER_CONNECT)
    context.set_ocsp_client_callback(_keep_staple)
    return context


def _keep_staple(connection: SSL.Connection, staple: bytes, _: object) -> bool:
    connection.get_app_data().append(staple)
    return True


async def _handshake(sock: socket.socket, target: Target) -> tuple[SSL.Connection, bytes, str]:
    """Run the handshake; return it, the stapled response, and why the peer broke off, if it did.

    Memory buffers stand between TLS and the socket because they keep the peer's first bytes, which
    tell an operator what answers there if it is not TLS.
    """
    connection = SSL.Connection(_context())
    staples: list[bytes] = []
    connection.set_app_data(staples)
    if name := _sni(target):
        connection.set_tlsext_host_name(name.encode("ascii"))
    connection.request_ocsp()
    connection.set_connect_state()
    excerpt, received = b"", 0
    while True:
        try:
            connection.do_handshake()
            break
        except SSL.WantReadError:
            await _send(sock, _pending(connection))
            data = await _receive(sock)
            received += len(data)
            excerpt = (excerpt + data)[:_EXCERPT_BYTES]
            if received > MAX_HANDSHAKE_BYTES:
                raise ProbeError(
                    Outcome.HANDSHAKE_FAILED,
                    f"{_at(target)} sent more than {MAX_HANDSHAKE_BYTES} bytes without completing"
                    " the handshake.",
                ) from None
            if data:
                connection.bio_write(data)
            else:
                connection.bio_shutdown()
        except SSL.Error as error:
            refusal = _refusal(error, excerpt, target)
            return connection, b"".join(staples[:1]), refusal
    await _send(sock, _pending(connection))
    return connection, b"".join(staples[:1]), ""


async def _take_leave(connection: SSL.Connection, sock: socket.socket, target: Target) -> None:
    peer = Encrypted(
        connection,
        functools.partial(_send, sock),
        functools.partial(_receive, sock),
    )
    await farewells.take(peer, _FAREWELLS.get(target.starttls))


def _pending(connection: SSL.Connection) -> bytes:
    """Return what is to be sent; a handshake's messages never fill the buffer."""
    try:
        return connection.bio_read(_READ)
    except SSL.WantReadError:
        return b""


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


def _refusal(error: SSL.Error, excerpt: bytes, target: Target) -> str:
    """Return what made the peer break off; raise ProbeError if it was not the peer's doing."""
    if excerpt and not _TLS_RECORD.match(excerpt):
        raise ProbeError(
            Outcome.NOT_TLS,
            f"{_at(target)} does not speak TLS, it answered {_printable(excerpt)}:"
            " look at the port and at the STARTTLS setting.",
        ) from error
    reason = _reason(error)
    if "unexpected eof" in reason:
        return "it closed the connection"
    if "alert" in reason or reason.startswith(_ALERTS):
        return reason
    raise ProbeError(
        Outcome.HANDSHAKE_FAILED,
        f"The TLS handshake with {_at(target)} failed ({reason}):"
        " look at the protocol versions, ciphers and certificates it offers.",
    ) from error


def _advice(refusal: str, target: Target) -> str:
    """Return what to look at when a peer broke off without a certificate."""
    if "unrecognized name" in refusal:
        asked = f"the server name {_printable(target.name)}" if _sni(target) else "no server name"
        return (
            f"it serves only names that it knows and was asked for {asked}: correct the server name"
        )
    return "look at its protocol versions, its ciphers and the server name"


def _reason(error: SSL.Error) -> str:
    """Return OpenSSL's words; what went wrong first says most."""
    if isinstance(error, SSL.SysCallError):
        return str(error.args[-1]).lower()
    queued = error.args[0] if error.args else []
    return next((reason.lower() for _, _, reason in queued if reason), "no reason given")


def _certificates(
    connection: SSL.Connection, target: Target, refusal: str
) -> tuple[tuple[x509.Certificate, ...], tuple[str, ...]]:
    """Return what can be decoded of the chain, and sentences about the rest.

    TLS clients never look at a certificate that their path does not need.
    """
    presented = connection.get_peer_cert_chain()
    if not presented:
        raise ProbeError(
            Outcome.HANDSHAKE_FAILED,
            f"{_at(target)} broke off the TLS handshake before it presented a certificate"
            f" ({refusal or 'none was sent'}): {_advice(refusal, target)}.",
        )
    decoded, problems = [], []
    for position, certificate in enumerate(presented):
        try:
            decoded.append(certificate.to_cryptography())
        except (ValueError, x509.InvalidVersion) as error:
            if position == 0:
                raise ProbeError(
                    Outcome.HANDSHAKE_FAILED,
                    f"{_at(target)} presents a certificate that cannot be decoded ({error}):"
                    " replace it.",
                ) from error
            problems.append(
                f"Certificate {position + 1} of the {len(presented)} presented cannot be decoded"
                f" ({error}) and was left out."
            )
    return tuple(decoded), tuple(problems)


# --- what is said in clear text before TLS -------------------------------------------------------


class _Clear:
    """A bounded reader and writer for the dialogue that leads to TLS."""

    def __init__(self, sock: socket.socket, target: Target) -> None:
        self._sock = sock
        self._target = target
        self._buffer = b""
        self._received = 0

    @property
    def name(self) -> str:
        """The name that the peer is addressed with."""
        return self._target.name

    async def send(self, data: bytes) -> None:
        await _send(self._sock, data)

    async def line(self) -> str:
        """Return the next line without its end."""
        line = await self.until(b"\n")
        return line.rstrip(b"\r\n").decode("ascii", "replace")

    async def until(self, *ends: bytes) -> bytes:
        """Return what comes up to and with the first of `ends`."""
        while not (
            found := [self._buffer.find(end) + len(end) for end in ends if end in self._buffer]
        ):
            await self._fill()
        size = min(found)
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    async def exactly(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        while len(self._buffer) < size:
            await self._fill()
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
            f"{_at(self._target)} did not start TLS: {reason}.",
        )

    def local_address(self) -> str:
        return str(self._sock.getsockname()[0])

    async def _fill(self) -> None:
        received = await _receive(self._sock)
        if not received:
            raise self.failed("it closed the connection")
        self._received += len(received)
        if self._received > MAX_CLEAR_BYTES:
            raise self.failed(f"it sent more than {MAX_CLEAR_BYTES} bytes of clear text")
        self._buffer += received


async def _smtp_dialogue(clear: _Clear) -> None:
    """Greeting, EHLO and STARTTLS: RFC 3207 section 4, replies as in RFC 5321 section 4.2."""
    await _reply(clear, "220")
    await clear.send(f"EHLO {_address_literal(clear.local_address())}\r\n".encode("ascii"))
    offered = await _reply(clear, "250")
    if "STARTTLS" not in (extension.strip().upper() for extension in offered):
        raise clear.failed("it does not offer STARTTLS in its EHLO reply")
    await clear.send(b"STARTTLS\r\n")
    await _reply(clear, "220")
    clear.finish()


async def _ftp_dialogue(clear: _Clear) -> None:
    """Greeting and AUTH TLS: RFC 4217 section 4, replies as in RFC 959 section 4.2."""
    await _reply(clear, "220")
    await clear.send(b"AUTH TLS\r\n")
    await _reply(clear, "234")
    clear.finish()


async def _reply(clear: _Clear, expected: str) -> list[str]:
    """Return the text of a reply line by line, or raise when its code is not the expected one.

    FTP's lines within a reply need not begin with the code; its last line does, as SMTP's.
    """
    texts = []
    while True:
        line = await clear.line()
        texts.append(line[4:])
        numbered = line[:3].isdecimal()
        if line[:3] != expected and (numbered or len(texts) == 1):
            raise clear.failed(f"it answered {_printable(line)} where {expected} is due")
        if numbered and line[3:4] != "-":
            return texts


def _address_literal(address: str) -> str:
    """RFC 5321 section 4.1.3: how a client without a domain name introduces itself."""
    bare = address.partition("%")[0]
    return f"[IPv6:{bare}]" if ":" in bare else f"[{bare}]"


async def _imap_dialogue(clear: _Clear) -> None:
    """Greeting and STARTTLS: RFC 9051 section 6.2.1; untagged lines may come in between."""
    greeting = await clear.line()
    if not greeting.upper().startswith("* OK"):
        raise clear.failed(f"it greeted with {_printable(greeting)}")
    await clear.send(b"a STARTTLS\r\n")
    while (answer := await clear.line()).startswith("* "):
        pass
    if not answer.upper().startswith("A OK"):
        raise clear.failed(f"it answered {_printable(answer)} to STARTTLS")
    clear.finish()


async def _pop3_dialogue(clear: _Clear) -> None:
    """Greeting and STLS: RFC 2595 section 4."""
    for command in (b"", b"STLS\r\n"):
        await clear.send(command)
        answer = await clear.line()
        if not answer.startswith("+OK"):
            raise clear.failed(f"it answered {_printable(answer)} where +OK is due")
    clear.finish()


_LDAP_STARTTLS = b"1.3.6.1.4.1.1466.20037"
_LDAP_SUCCESS = 0


async def _ldap_dialogue(clear: _Clear) -> None:
    """Send the extended request StartTLS: RFC 4511 sections 4.12 and 4.14, BER in short form."""
    name = bytes([0x80, len(_LDAP_STARTTLS)]) + _LDAP_STARTTLS
    message = b"\x02\x01\x01" + bytes([0x77, len(name)]) + name
    await clear.send(bytes([0x30, len(message)]) + message)
    answer = await _ber_element(clear, 0x30)
    # The message's number is a one, as was ours.
    number, operation = answer[:3], answer[3:]
    if number != b"\x02\x01\x01" or operation[:1] != b"\x78":
        raise clear.failed(f"it answered {_printable(answer)}, no extended response")
    content = operation[1 + _ber_length_size(operation[1:]) :]
    if len(content) < 3 or content[:2] != b"\x0a\x01":
        raise clear.failed(f"it answered {_printable(answer)}, no extended response")
    if content[2] != _LDAP_SUCCESS:
        diagnostic = re.sub(rb"[^ -~]+", b" ", content[3:]).strip()
        raise clear.failed(f"it answered with result code {content[2]} {_printable(diagnostic)}")
    clear.finish()


async def _ber_element(clear: _Clear, tag: int) -> bytes:
    """Return the content of the next BER element (X.690 section 8.1)."""
    head = await clear.exactly(2)
    if head[0] != tag:
        raise clear.failed(f"it answered {_printable(head)}, which is no LDAP")
    size = head[1]
    if size >= 0x80:
        size = int.from_bytes(await clear.exactly(size - 0x80), "big")
    return await clear.exactly(size)


def _ber_length_size(data: bytes) -> int:
    return 1 if not data or data[0] < 0x80 else data[0] - 0x80 + 1


_POSTGRESQL_SSL_REQUEST = struct.pack(">ii", 8, 80877103)


async def _postgresql_dialogue(clear: _Clear) -> None:
    """Send an SSLRequest; PostgreSQL manual, "Message Formats" and "SSL Session Encryption"."""
    await clear.send(_POSTGRESQL_SSL_REQUEST)
    answer = await clear.exactly(1)
    if answer == b"N":
        raise clear.failed("TLS is not enabled in this PostgreSQL server")
    if answer != b"S":
        raise clear.failed(f"it answered {_printable(answer)} where 'S' is due")
    clear.finish()


def _xmpp_dialogue(namespace: str) -> Callable[[_Clear], Awaitable[None]]:
    """Return the negotiation of a stream of clients or of servers: RFC 6120 section 5.4."""

    async def dialogue(clear: _Clear) -> None:
        await clear.send(_stream_header(clear.name, namespace))
        offered = await clear.until(b"</stream:features>", b"</stream:error>", b"</stream:stream>")
        if b"<starttls" not in offered:
            raise clear.failed(f"it does not offer STARTTLS but {_stream_end(offered)}")
        await clear.send(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
        if b"<proceed" not in await clear.until(b"/>", b"</proceed>", b"</failure>"):
            raise clear.failed("it refused STARTTLS")
        clear.finish()

    return dialogue


_STREAM_ERROR = re.compile(rb"<stream:error[^>]*>\s*<([a-z-]+)")


def _stream_end(offered: bytes) -> str:
    """Return the condition of a stream error (RFC 6120, 4.9.3), or the end of what was said."""
    if error := _STREAM_ERROR.search(offered):
        return f"ends the stream ({error[1].decode()})"
    return _printable(offered[-_EXCERPT_BYTES:])


def _stream_header(name: str, namespace: str) -> bytes:
    to = name if _is_address(name) else a_label(name)
    return (
        f"<?xml version='1.0'?><stream:stream to='{_in_xml(to)}' version='1.0'"
        f" xmlns='{namespace}' xmlns:stream='http://etherx.jabber.org/streams'>"
    ).encode()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _in_xml(text: str) -> str:
    return text.replace("&", "&amp;").replace("'", "&apos;").replace("<", "&lt;")


# Packets: MySQL internals manual, "Protocol::HandshakeV10" and "Protocol::SSLRequest"; MariaDB
# documentation, "Connecting" in the client/server protocol.
_MYSQL_PROTOCOL = 10
_MYSQL_ERROR = 0xFF


async def _mysql_dialogue(clear: _Clear) -> None:
    """Read the initial handshake packet and answer with an SSLRequest packet.

    A packet is a 3-byte little-endian length, a sequence number and the payload.
    """
    header = await clear.exactly(4)
    greeting = await clear.exactly(int.from_bytes(header[:3], "little"))
    if not _mysql_capabilities(clear, greeting) & farewells.CLIENT_SSL:
        raise clear.failed("TLS is not enabled in this MySQL or MariaDB server")
    request = farewells.mysql_flags(
        farewells.PROTOCOL_41
        | farewells.CLIENT_SSL
        | farewells.SECURE_CONNECTION
        | farewells.PLUGIN_AUTH
    )
    sequence = (header[3] + 1) % 256
    await clear.send(len(request).to_bytes(3, "little") + bytes([sequence]) + request)
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


_DIALOGUES: dict[StartTls, Callable[[_Clear], Awaitable[None]]] = {
    StartTls.SMTP: _smtp_dialogue,
    StartTls.IMAP: _imap_dialogue,
    StartTls.POP3: _pop3_dialogue,
    StartTls.LDAP: _ldap_dialogue,
    StartTls.POSTGRESQL: _postgresql_dialogue,
    StartTls.MYSQL: _mysql_dialogue,
    StartTls.XMPP: _xmpp_dialogue("jabber:client"),
    StartTls.XMPP_SERVER: _xmpp_dialogue("jabber:server"),
    StartTls.FTP: _ftp_dialogue,
}

_FAREWELLS: dict[StartTls, Farewell] = {
    StartTls.SMTP: farewells.saying(b"QUIT\r\n"),
    StartTls.IMAP: farewells.saying(b"b LOGOUT\r\n"),
    StartTls.POP3: farewells.saying(b"QUIT\r\n"),
    StartTls.LDAP: farewells.saying(farewells.LDAP_UNBIND),
    StartTls.MYSQL: farewells.mysql,
    StartTls.FTP: farewells.saying(b"QUIT\r\n"),
}
"""The others are best left by the end of TLS: PostgreSQL expects that, XMPP would have to begin a
second stream first, which Prosody logs more of; of TLS from the first byte nothing says what is
spoken under it."""


# --- bytes and words -----------------------------------------------------------------------------


async def _send(sock: socket.socket, data: bytes) -> None:
    """Send everything.

    A peer that has hung up is not an error here: its last words may still be waiting to be read.
    """
    with contextlib.suppress(OSError):
        await asyncio.get_running_loop().sock_sendall(sock, data)


async def _receive(sock: socket.socket) -> bytes:
    """Return what arrives next, b"" when the peer has ended the connection in whatever way."""
    try:
        return await asyncio.get_running_loop().sock_recv(sock, _READ)
    except OSError:
        return b""


def _at(target: Target) -> str:
    return f"{_printable(target.host)} port {target.port}"


def _printable(said: str | bytes) -> str:
    """Quote the start of what a peer said (or an operator typed), control characters escaped."""
    return repr(said[:_EXCERPT_BYTES]).removeprefix("b")


def _os_reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    return getattr(error, "strerror", None) or str(error)
