"""Probe one directory server as its clients use it: resolve, connect, TLS, bind, search.

Each phase is timed by itself. libldap (python-ldap) speaks the protocol over one end of a socket
pair; this module carries the bytes between the other end and the server, so that every wait has a
deadline and TLS is OpenSSL's (see ``wire``).
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from soc.ldap_probe.diagnostics import Outcome, active_directory, error_class, printable
from soc.ldap_probe.wire import Deadline, Fault, Stream, connect, resolve

try:
    import ldap
    from ldap.extop import ExtendedRequest
except ImportError:
    # It is compiled: the image has it, an embedded stack only where somebody installed it.
    ldap = None

HAS_CLIENT = ldap is not None

NETWORK_SECONDS = 5.0
"""For the way to the server: name, connection and TLS together."""

OPERATION_SECONDS = 10.0
"""For what is asked of it: bind and search together."""

MOST_SECONDS = NETWORK_SECONDS + OPERATION_SECONDS

_START_TLS = "1.3.6.1.4.1.1466.20037"
"""RFC 4511, section 4.14."""

_NO_ATTRIBUTES = "1.1"
"""RFC 4511, section 4.5.1.8."""

_SEQUENCE = 0x30
"""What every LDAP message begins with (RFC 4511, section 4.1.1)."""

_CSN = re.compile(r"(\d{14}\.\d{6}Z)#\w{6}#(\w{3})#\w{6}")
"""OpenLDAP's change sequence number: time, count, server, modifier (draft-ietf-ldup-lcup, 2.1)."""


class Security(StrEnum):
    """How the connection is protected."""

    LDAPS = "ldaps"
    STARTTLS = "starttls"
    PLAIN = "plain"


class Phase(StrEnum):
    """The parts of a probe, in their order."""

    RESOLVE = "resolve"
    CONNECT = "connect"
    TLS = "tls"
    BIND = "bind"
    SEARCH = "search"


@dataclass(frozen=True)
class Target:
    """A server, and what to ask it.

    ``authority`` holds the PEM certificates that are trusted, nothing for the system's.
    ``user`` is a DN or, for Active Directory, also ``name@domain``; without one the bind is
    anonymous. Without a filter the entry ``base`` itself is read, and without a base the RootDSE.
    """

    host: str
    port: int
    security: Security = Security.LDAPS
    authority: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    base: str = ""
    filter: str = ""
    replication: bool = False

    def without_credential(self) -> Target:
        """Return the same server with what it may show anybody: its RootDSE."""
        return replace(self, user="", password="", base="", filter="", replication=False)


@dataclass
class Finding:
    """What a probe found; ``milliseconds`` has the phases that were begun.

    ``bound`` tells whether the credential was taken, None if none was tried. ``csn`` is the newest
    change of each server of a replication group by that server's number, ``usn`` Active
    Directory's counter of changes, where they could be read.
    """

    outcome: Outcome = Outcome.OK
    error: str = ""
    detail: str = ""
    diagnostic: str = ""
    milliseconds: dict[Phase, float] = field(default_factory=dict)
    address: str = ""
    tls_version: str = ""
    entries: int = 0
    bound: bool | None = None
    csn: dict[str, str] = field(default_factory=dict)
    usn: int | None = None

    @property
    def total(self) -> float:
        """The milliseconds of all phases."""
        return sum(self.milliseconds.values())


def _always() -> bool:
    return True


def probe(
    target: Target,
    *,
    may_bind: Callable[[], bool] = _always,
    network_seconds: float = NETWORK_SECONDS,
    operation_seconds: float = OPERATION_SECONDS,
) -> Finding:
    """Probe a server and return what was found; nothing that a server does raises.

    ``may_bind`` is asked when everything before the bind has gone well, and may wait. Where it
    says no, the rest is that of ``Target.without_credential``.
    """
    finding = Finding()
    phase = Phase.RESOLVE

    @contextlib.contextmanager
    def timed(name: Phase) -> Iterator[None]:
        nonlocal phase
        phase, started = name, time.perf_counter()
        try:
            yield
        finally:
            spent = (time.perf_counter() - started) * 1000
            finding.milliseconds[name] = round(spent, 2)

    deadline = Deadline(network_seconds)
    try:
        with timed(Phase.RESOLVE):
            addresses = resolve(target.host, target.port, deadline)
        with timed(Phase.CONNECT):
            sock, address = connect(addresses, deadline)
        finding.address = str(address)
        with _Session(sock, target) as session:
            if target.security != Security.PLAIN:
                with timed(Phase.TLS):
                    session.secure(deadline)
                finding.tls_version = session.stream.tls_version
            if target.user and not may_bind():
                target = session.target = target.without_credential()
            deadline = Deadline(operation_seconds)
            if target.user:
                try:
                    with timed(Phase.BIND):
                        session.bind(deadline)
                except Fault as fault:
                    if fault.outcome == Outcome.CREDENTIAL:
                        finding.bound = False
                        with timed(Phase.SEARCH):
                            fault.detail += f" {session.read_as_nobody(deadline)}"
                    raise
                finding.bound = True
            with timed(Phase.SEARCH):
                finding.entries = session.search(deadline)
            if target.replication:
                finding.csn, finding.usn = session.replication(deadline)
    except Fault as fault:
        finding.outcome, finding.error = fault.outcome, fault.error
        finding.detail, finding.diagnostic = fault.detail, fault.diagnostic
    except TimeoutError:
        finding.outcome, finding.error = Outcome.TIMEOUT, f"{phase}_timeout"
        finding.detail = (
            f"{_at(target)} accepted the connection but {_LATE[phase]} within "
            f"{deadline.seconds:g} s: look at the load and at the service itself."
        )
    except ValueError as error:
        # LDAP's strings are UTF-8 (RFC 4511, section 4.1.2), and python-ldap insists on it.
        finding.outcome, finding.error = Outcome.DOWN, "not_text"
        finding.detail = f"{_at(target)} sent text that is none ({printable(str(error))})."
    return finding


_LATE = {
    Phase.RESOLVE: "its name was not resolved",
    Phase.CONNECT: "the connection was not made",
    Phase.TLS: "did not complete TLS",
    Phase.BIND: "did not answer the bind",
    Phase.SEARCH: "did not answer the search",
}


class _Session:
    """A conversation with one server."""

    def __init__(self, sock: socket.socket, target: Target) -> None:
        self.stream = Stream(sock, _at(target))
        self.target = target
        self._ours, theirs = socket.socketpair()
        self._ours.setblocking(False)
        # libldap waits for readiness first, but would wait in read(2) for the rest of a message.
        theirs.setblocking(False)
        self._unread = theirs.dup()
        # The descriptor is libldap's to close from here on.
        self._client = ldap.initialize("ldap://", fileno=theirs.detach())
        self._client.set_option(ldap.OPT_REFERRALS, 0)

    def __enter__(self) -> _Session:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ldap.LDAPError):
            self._client.unbind_ext()
        self.stream.close(self._written)
        self._unread.close()
        self._ours.close()

    def secure(self, deadline: Deadline) -> None:
        """Turn to TLS, by the extended operation if the port begins in clear text."""
        if self.target.security == Security.STARTTLS:
            with self._answers(Outcome.DOWN, "starttls_refused", "does not start TLS"):
                message = self._client.extop(ExtendedRequest(_START_TLS, None))
                self._wait(message, deadline, alone=True)
        self.stream.start_tls(self.target.authority, self.target.host, deadline)

    def bind(self, deadline: Deadline) -> None:
        """Bind as the target's user.

        Raises:
            Fault: it was refused.
        """
        target = self.target
        if not target.password:
            # RFC 4513, section 5.1.2: it would succeed, as nobody.
            raise Fault(
                *(Outcome.CREDENTIAL, "no_password"),
                f"{printable(target.user)} has no password: a server would take it for nobody.",
            )
        with self._answers(Outcome.CREDENTIAL, "", f"refuses {printable(target.user)}"):
            self._wait(self._client.simple_bind(target.user, target.password), deadline)

    def read_as_nobody(self, deadline: Deadline) -> str:
        """Read the RootDSE anonymously, and return a sentence about that."""
        try:
            self._wait(self._client.simple_bind("", ""), deadline)
            found, _ = self._search("", "", [_NO_ATTRIBUTES], deadline)
        except (Fault, TimeoutError, ldap.LDAPError):
            found = []
        if not found:
            return "It shows strangers nothing."
        return "It works: it shows its RootDSE to strangers."

    def search(self, deadline: Deadline) -> int:
        """Search as the target says; return how many entries were found.

        Raises:
            Fault: none was.
        """
        target = self.target
        wanted = f"{printable(target.filter or 'the entry')} below {target.base or 'the RootDSE'}"
        with self._answers(Outcome.REFUSED, "", f"does not show {wanted}"):
            found, references = self._search(target.base, target.filter, [_NO_ATTRIBUTES], deadline)
        if found:
            return len(found)
        if references:
            raise Fault(
                *(Outcome.REFERRAL, "referral"),
                f"{_at(target)} sends its clients elsewhere for {wanted}: {references[0]}.",
            )
        raise Fault(
            *(Outcome.REFUSED, "nothing_found"),
            f"{_at(target)} answers, but finds nothing for {wanted}: look at base, filter and "
            "access rights.",
        )

    def replication(self, deadline: Deadline) -> tuple[dict[str, str], int | None]:
        """Return how far the server's copy is, as far as it tells."""
        try:
            names = ["highestCommittedUSN", "defaultNamingContext", "namingContexts"]
            root = self._attributes("", names, deadline)
            if usn := root.get("highestcommittedusn"):
                return {}, int(usn[0])
            suffix = self._suffix(root.get("namingcontexts", []))
            values = self._attributes(suffix, ["contextCSN"], deadline).get("contextcsn", [])
        except (Fault, TimeoutError, ldap.LDAPError, ValueError):
            # Most servers do not tell everybody, which is no fault of theirs.
            return {}, None
        return {csn[2]: csn[0] for value in values if (csn := _CSN.fullmatch(value))}, None

    def _suffix(self, contexts: list[str]) -> str:
        base = self.target.base.lower()
        holding = [suffix for suffix in contexts if base.endswith(suffix.lower())]
        return max(holding, key=len, default=contexts[0] if contexts else "")

    def _attributes(
        self, base: str, names: list[str], deadline: Deadline
    ) -> Mapping[str, list[str]]:
        found, _ = self._search(base, "", names, deadline)
        return {
            name.lower(): [value.decode("utf-8", "replace") for value in values]
            for _, attributes in found
            for name, values in attributes.items()
        }

    def _search(
        self, base: str, query: str, attributes: list[str], deadline: Deadline
    ) -> tuple[list[Any], list[str]]:
        """Return what a search finds, at most one entry, and where it sends us."""
        scope = ldap.SCOPE_SUBTREE if query else ldap.SCOPE_BASE
        message = self._client.search_ext(
            *(base, scope, query or "(objectClass=*)", attributes),
            timeout=max(1, int(deadline.remaining())),
            sizelimit=1,
        )
        return self._wait(message, deadline)

    def _wait(
        self, message: int, deadline: Deadline, *, alone: bool = False
    ) -> tuple[list[Any], list[str]]:
        """Carry bytes until a request is answered; return its entries and references.

        ``alone``: nothing may come behind the answer.
        """
        entries: list[Any] = []
        references: list[str] = []
        heard = b""
        self.stream.send(self._written(), deadline)
        while True:
            try:
                kind, data, *_ = self._client.result4(message, 0, 0, 0, 0, 1)
            except ldap.SIZELIMIT_EXCEEDED:
                # We asked for one entry: there are more.
                if not entries:
                    raise
                return entries, references
            if kind == ldap.RES_SEARCH_ENTRY:
                entries += data
            elif kind == ldap.RES_SEARCH_REFERENCE:
                references += [printable(url) for _, urls, *_ in data for url in urls]
            elif kind is not None:
                return entries, references
            elif not select.select([self._unread], [], [], 0)[0]:
                received = self.stream.receive(deadline)
                if not heard and received[0] != _SEQUENCE:
                    # libldap would take some letters for a long message and wait for its rest.
                    raise Fault(
                        *(Outcome.DOWN, "not_ldap"),
                        f"{_at(self.target)} does not speak LDAP, it said "
                        f"{printable(received[:60].decode('ascii', 'replace'))!r}: look at the "
                        "port and at the security setting.",
                    )
                heard = heard + received if alone else received
                if alone and len(heard) > _size_of_message(heard):
                    # RFC 4511, section 4.14.1; it could pass for something said under TLS.
                    raise Fault(
                        *(Outcome.DOWN, "starttls_refused"),
                        f"{_at(self.target)} kept talking in clear text after it agreed to TLS.",
                    )
                self._ours.sendall(received)

    def _written(self) -> bytes:
        """Return what libldap wants to be sent."""
        parts = []
        with contextlib.suppress(BlockingIOError):
            while part := self._ours.recv(64 * 1024):
                parts.append(part)
        return b"".join(parts)

    @contextlib.contextmanager
    def _answers(self, outcome: Outcome, error: str, what: str) -> Iterator[None]:
        """Make a fault of a result that is no success.

        ``outcome`` and ``error`` are for results that mean nothing of their own.
        """
        try:
            yield
        except ldap.LDAPError as problem:
            told = problem.args[0] if problem.args and isinstance(problem.args[0], dict) else {}
            raise _fault(_at(self.target), problem, told, outcome, error, what) from None


_ELSEWHERE = re.compile(r"ldaps?://\S+")


def _fault(
    peer: str,
    problem: Exception,
    told: Mapping[str, Any],
    outcome: Outcome,
    error: str,
    what: str,
) -> Fault:
    """Return what a result code means here."""
    description = str(told.get("desc", type(problem).__name__))
    diagnostic = printable(str(told.get("info", "")))
    if isinstance(problem, ldap.LOCAL_ERROR | ldap.DECODING_ERROR | ldap.SERVER_DOWN):
        return Fault(
            *(Outcome.DOWN, "not_ldap"),
            f"{peer} does not speak LDAP: look at the port and at the security setting.",
            diagnostic,
        )
    if isinstance(problem, ldap.REFERRAL):
        elsewhere = _ELSEWHERE.search(diagnostic)
        return Fault(
            *(Outcome.REFERRAL, "referral"),
            f"{peer} sends its clients elsewhere: "
            f"{elsewhere[0] if elsewhere else 'it does not say where'}.",
            diagnostic,
        )
    if isinstance(problem, ldap.FILTER_ERROR):
        return Fault(
            Outcome.REFUSED, "filter_error", "The filter is not one (RFC 4515): correct it."
        )
    words = f"{description}: {diagnostic}" if diagnostic else description
    if isinstance(problem, ldap.BUSY | ldap.UNAVAILABLE):
        detail = f"{peer} says that it cannot serve now ({words})."
        return Fault(Outcome.DOWN, error_class(description), detail, diagnostic)
    if known := active_directory(diagnostic):
        name, meaning = known
        return Fault(outcome, name, f"{peer} {what}: {meaning}.", diagnostic)
    return Fault(
        outcome, error or error_class(description), f"{peer} {what} ({words}).", diagnostic
    )


def _size_of_message(data: bytes) -> int:
    """Return the octets of the BER element that begins ``data`` (X.690, 8.1.3)."""
    if len(data) < 2 or data[1] < 0x80:
        return 2 + (data[1] if len(data) > 1 else 0)
    octets = data[1] & 0x7F
    return 2 + octets + int.from_bytes(data[2 : 2 + octets])


def _at(target: Target) -> str:
    return f"{printable(target.host)} port {target.port}"
