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
import threading
import time
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar, cast

from cryptography import x509
from OpenSSL import SSL

from soc.common.net import a_label
from soc.ssl_certs import farewells
from soc.ssl_certs.dialogues import DIALOGUES, FAREWELLS, ClearText
from soc.ssl_certs.farewells import Encrypted
from soc.ssl_certs.streams import (
    EXCERPT_BYTES,
    READ_AT_ONCE,
    os_reason,
    place_of,
    printable,
    receive,
    send,
)
from soc.ssl_certs.targets import Outcome, ProbeError, StartTls, Target

logger = logging.getLogger(__name__)

AT_ONCE = 256
"""Endpoints that are waited for at the same time; each costs some 150 KiB at most."""

RESOLVE_TIMEOUT = 10.0
"""Seconds for the system's resolver; two of its own attempts of 5 s, as resolv.conf(5) has it."""

# The resolver blocks a thread for each name; its threads count against the container's limit.
_RESOLVERS = 24

# What a peer may send in a handshake: OpenSSL takes certificates of 100 KiB in all.
MAX_HANDSHAKE_BYTES = 256 * 1024

Key = TypeVar("Key")


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
        logger.exception("The probe of %s failed", place_of(target))
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
                    await DIALOGUES[target.starttls](ClearText(sock, target))
                connection, staple, refusal = await _handshake(sock, target)
            elapsed_ms = round((time.monotonic() - started) * 1000)
            if not refusal:
                await _take_leave(connection, sock, target)
        except TimeoutError:
            raise ProbeError(
                Outcome.HANDSHAKE_TIMEOUT,
                f"{place_of(target)} accepted the connection but did not complete the handshake"
                f" within {handshake_timeout:g} s: {_silence(target.starttls)}.",
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


def _silence(starttls: StartTls) -> str:
    """Return what to look at when a peer says nothing."""
    if not starttls:
        return "look at the service behind it, and at the protocol if it wants STARTTLS"
    advice = (
        "look at the protocol (a port that speaks TLS from the first byte waits for the client,"
        " so it must not be STARTTLS) and at the service behind it"
    )
    if starttls is StartTls.SMTP:
        # Postfix asks for the client's name before it greets; a resolver's timeout is 5 s.
        advice += "; mail servers greet late if their resolver does not answer"
    return advice


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
            failures.append((_connect_outcome(error), f"{address[0]}: {os_reason(error)}"))
    outcome = min((failure for failure, _ in failures), key=list(_CONNECT_ADVICE).index)
    tried = "; ".join(text for _, text in failures)
    raise ProbeError(
        outcome, f"No connection to {place_of(target)} ({tried}): {_CONNECT_ADVICE[outcome]}."
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
            f"The name {printable(target.host)} does not resolve ({os_reason(error)}):"
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
            await send(sock, _pending(connection))
            data = await receive(sock)
            received += len(data)
            excerpt = (excerpt + data)[:EXCERPT_BYTES]
            if received > MAX_HANDSHAKE_BYTES:
                raise ProbeError(
                    Outcome.HANDSHAKE_FAILED,
                    f"{place_of(target)} sent more than {MAX_HANDSHAKE_BYTES} bytes without"
                    " completing the handshake.",
                ) from None
            if data:
                connection.bio_write(data)
            else:
                connection.bio_shutdown()
        except SSL.Error as error:
            refusal = _refusal(error, excerpt, target)
            return connection, b"".join(staples[:1]), refusal
    await send(sock, _pending(connection))
    return connection, b"".join(staples[:1]), ""


async def _take_leave(connection: SSL.Connection, sock: socket.socket, target: Target) -> None:
    peer = Encrypted(
        connection,
        functools.partial(send, sock),
        functools.partial(receive, sock),
    )
    await farewells.take(peer, FAREWELLS.get(target.starttls))


def _pending(connection: SSL.Connection) -> bytes:
    """Return what is to be sent; a handshake's messages never fill the buffer."""
    try:
        return connection.bio_read(READ_AT_ONCE)
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
            f"The server name {printable(target.name)} of {place_of(target)} is not a host name"
            f" ({error}): correct it.",
        ) from error


def _refusal(error: SSL.Error, excerpt: bytes, target: Target) -> str:
    """Return what made the peer break off; raise ProbeError if it was not the peer's doing."""
    if excerpt and not _TLS_RECORD.match(excerpt):
        raise ProbeError(
            Outcome.NOT_TLS,
            f"{place_of(target)} does not speak TLS, it answered {printable(excerpt)}:"
            " look at the port and at the STARTTLS setting.",
        ) from error
    reason = _reason(error)
    if "unexpected eof" in reason:
        return "it closed the connection"
    if "alert" in reason or reason.startswith(_ALERTS):
        return reason
    raise ProbeError(
        Outcome.HANDSHAKE_FAILED,
        f"The TLS handshake with {place_of(target)} failed ({reason}):"
        " look at the protocol versions, ciphers and certificates it offers.",
    ) from error


def _advice(refusal: str, target: Target) -> str:
    """Return what to look at when a peer broke off without a certificate."""
    if "unrecognized name" in refusal:
        asked = f"the server name {printable(target.name)}" if _sni(target) else "no server name"
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
            f"{place_of(target)} broke off the TLS handshake before it presented a certificate"
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
                    f"{place_of(target)} presents a certificate that cannot be decoded ({error}):"
                    " replace it.",
                ) from error
            problems.append(
                f"Certificate {position + 1} of the {len(presented)} presented cannot be decoded"
                f" ({error}) and was left out."
            )
    return tuple(decoded), tuple(problems)
