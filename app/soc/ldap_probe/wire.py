"""The way to a directory server: its addresses, a connection, TLS, and a deadline for each.

libldap is not asked to do this: it reports every bad certificate as "Can't contact LDAP server",
and it neither times a phase nor ends one that drips bytes.
"""

import functools
import socket
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import cast

from soc.ldap_probe.diagnostics import Outcome, printable

MOST_BYTES = 4 * 1024 * 1024
"""What one server may send in one probe; an honest one sends a few kilobytes."""

_CHUNK = 16 * 1024

_RESOLVERS = 64
"""Names looked up at once: getaddrinfo(3) has no deadline, and a dead name server holds each."""

# verify(1) of OpenSSL, "Diagnostics": the numbers behind X509_V_ERR_...
_CERTIFICATE_ERRORS = {
    9: ("not_yet_valid", "is not valid yet"),
    10: ("expired", "has expired"),
    18: ("self_signed", "is self-signed and not trusted"),
    19: ("unknown_authority", "leads to a root that is not trusted"),
    20: ("unknown_authority", "was issued by an authority that is not known here"),
    21: ("unknown_authority", "comes without the chain to a trusted authority"),
    62: ("wrong_name", "is for another name"),
    64: ("wrong_name", "is for another address"),
}


class Fault(Exception):
    """A probe that ends here; ``detail`` is one sentence for the operator."""

    def __init__(self, outcome: Outcome, error: str, detail: str, diagnostic: str = "") -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.error = error
        self.detail = detail
        self.diagnostic = diagnostic


class Deadline:
    """A point in time that no amount of traffic moves."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def remaining(self) -> float:
        """Return the seconds left, more than 0.

        Raises:
            TimeoutError: there are none.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


@dataclass(frozen=True)
class Address:
    """Where a name leads."""

    family: socket.AddressFamily
    address: tuple[str, int]

    def __str__(self) -> str:
        return self.address[0]


@functools.cache
def _resolver() -> ThreadPoolExecutor:
    # Made when it is needed: threads do not survive the fork of a worker's child.
    return ThreadPoolExecutor(_RESOLVERS, thread_name_prefix="resolve")


def resolve(host: str, port: int, deadline: Deadline) -> list[Address]:
    """Return the addresses of a host in the system's order.

    Raises:
        Fault: there are none, or none in time.
    """
    pending = _resolver().submit(
        socket.getaddrinfo, host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
    )
    try:
        found = pending.result(deadline.remaining())
    except TimeoutError:
        pending.cancel()
        raise Fault(
            Outcome.DOWN,
            "resolve_timeout",
            f"The name {printable(host)} was not resolved in {deadline.seconds:g} s: "
            "look at the name servers.",
        ) from None
    except (OSError, ValueError) as error:
        # ValueError: no host name at all, such as one with an empty label.
        raise Fault(
            Outcome.DOWN,
            "resolve_failed",
            f"The name {printable(host)} does not resolve ({_reason(error)}): "
            "look at its spelling and at the DNS.",
        ) from None
    # Python without IPv6 would give (int, bytes); an IPv6 address has four parts.
    return [Address(family, cast("tuple[str, int]", address)) for family, *_, address in found]


_CONNECT_ERRORS = {
    "connect_refused": "nothing listens there, or a firewall rejects it",
    "connect_timeout": "look for a host that is down or a firewall that drops packets",
    "unreachable": "look at the route from this server",
}
"""What to look at; the first of several failures' classes here says most about the service."""


def connect(addresses: list[Address], deadline: Deadline) -> tuple[socket.socket, Address]:
    """Return a connected socket and the address that took the connection.

    Raises:
        Fault: none of the addresses did.
    """
    failures: list[tuple[str, str]] = []
    for position, address in enumerate(addresses):
        try:
            # An even share each: an address that swallows packets must leave time for the next.
            share = deadline.remaining() / (len(addresses) - position)
            return _connect_one(address, share), address
        except OSError as error:
            failures.append((_connect_error(error), f"{address}: {_reason(error)}"))
    likeliest = min((name for name, _ in failures), key=list(_CONNECT_ERRORS).index)
    tried = "; ".join(text for _, text in failures)
    raise Fault(Outcome.DOWN, likeliest, f"No connection ({tried}): {_CONNECT_ERRORS[likeliest]}.")


def _connect_one(address: Address, seconds: float) -> socket.socket:
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.settimeout(seconds)
        sock.connect(address.address)
        # Requests are small and wait for their answers: Nagle would add 40 ms to some.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock


def _connect_error(error: OSError) -> str:
    # Refused, or reset in the same instant, which is how some firewalls refuse.
    if isinstance(error, ConnectionError):
        return "connect_refused"
    return "connect_timeout" if isinstance(error, TimeoutError) else "unreachable"


@functools.lru_cache(maxsize=64)
def context(authority: str) -> ssl.SSLContext:
    """Return a context that trusts the PEM certificates in ``authority``, or the system's.

    Raises:
        ssl.SSLError: there is no certificate in it.
    """
    made = ssl.create_default_context(cadata=authority or None)
    # Python 3.13 refuses private roots without key identifiers, which libldap takes.
    made.verify_flags &= ~ssl.VERIFY_X509_STRICT
    # RFC 9525, section 6.3, and the certificate tracker's rule.
    made.hostname_checks_common_name = False
    return made


class WireStream:
    """A bounded connection that may turn to TLS."""

    def __init__(self, sock: socket.socket, peer: str) -> None:
        self._sock = sock
        self._peer = peer
        self._received = 0

    @property
    def tls_version(self) -> str:
        """The version of TLS that is spoken, or nothing."""
        return self._sock.version() or "" if isinstance(self._sock, ssl.SSLSocket) else ""

    def start_tls(self, authority: str, name: str, deadline: Deadline) -> None:
        """Speak TLS from here on, and verify that the peer is ``name``.

        Raises:
            Fault: the certificate is not right, or there is no TLS in time.
        """
        self._sock.settimeout(deadline.remaining())
        try:
            self._sock = context(authority).wrap_socket(self._sock, server_hostname=name)
        except TimeoutError:
            raise
        except ssl.SSLCertVerificationError as error:
            raise self._bad_certificate(error, name) from None
        except (OSError, ValueError) as error:
            # ValueError: a name that cannot be sent, such as one that begins with a dot.
            raise self._no_tls(error) from None

    def _bad_certificate(self, error: ssl.SSLCertVerificationError, name: str) -> Fault:
        known = _CERTIFICATE_ERRORS.get(error.verify_code)
        kind, what = known or ("certificate", f"is refused ({error.verify_message})")
        detail = f"The certificate of {self._peer} {what}"
        if kind == "wrong_name":
            detail += f" than {printable(name)} (its subjectAltName decides, RFC 9525)"
        return Fault(Outcome.CERTIFICATE, kind, f"{detail}.", error.verify_message)

    def _no_tls(self, error: OSError | ValueError) -> Fault:
        if isinstance(error, ssl.SSLEOFError | ConnectionError):
            return Fault(
                Outcome.DOWN,
                "tls_closed",
                f"{self._peer} closed the connection when TLS began: is it the port for ldaps?",
            )
        reason = (getattr(error, "reason", None) or str(error)).replace("_", " ").lower()
        return Fault(
            Outcome.DOWN,
            "tls_failed",
            f"There is no TLS with {self._peer} ({printable(reason)}): "
            "look at the port, and at the versions and ciphers that it offers.",
        )

    def send(self, data: bytes, deadline: Deadline) -> None:
        """Send everything before the deadline."""
        self._sock.settimeout(deadline.remaining())
        try:
            self._sock.sendall(data)
        except TimeoutError:
            raise
        except OSError as error:
            raise self._lost(_reason(error)) from None

    def receive(self, deadline: Deadline) -> bytes:
        """Return what arrives next.

        Raises:
            Fault: the peer has ended the connection, or sends too much.
            TimeoutError: nothing arrives in time.
        """
        self._sock.settimeout(deadline.remaining())
        try:
            data = self._sock.recv(_CHUNK)
        except TimeoutError:
            raise
        except OSError as error:
            raise self._lost(_reason(error)) from None
        if not data:
            raise self._lost("without a word")
        self._received += len(data)
        if self._received > MOST_BYTES:
            raise Fault(
                Outcome.DOWN,
                "too_much",
                f"{self._peer} sent more than {MOST_BYTES // 1024**2} MB in answer to one probe.",
            )
        return data

    def _lost(self, why: str) -> Fault:
        return Fault(
            Outcome.DOWN, "connection_lost", f"{self._peer} closed the connection ({why})."
        )

    def close(self, farewell: Callable[[], bytes] = bytes) -> None:
        """Send the last words, if that takes no waiting, and close."""
        try:
            self._sock.settimeout(0.2)
            self._sock.sendall(farewell())
        except OSError:
            # They are a courtesy to the server's log; everything is known already.
            pass
        finally:
            self._sock.close()


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
