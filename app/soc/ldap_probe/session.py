"""A conversation with one directory server.

libldap (python-ldap) speaks the protocol over one end of a socket pair; this module carries the
bytes between the other end and the server, so that every wait has a deadline and TLS is the
probe's own (see ``wire``).
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from soc.ldap_probe.diagnostics import Outcome, Security, active_directory, error_class, printable
from soc.ldap_probe.wire import Deadline, Fault, WireStream

if TYPE_CHECKING:
    from soc.ldap_probe.password import Told

try:
    import ldap
    from ldap.controls import RequestControl, ResponseControl, SimplePagedResultsControl
    from ldap.extop import ExtendedRequest

    from soc.ldap_probe import password
except ImportError:
    # It is compiled: the image has it, an embedded stack only where somebody installed it.
    ldap = None

HAS_CLIENT = ldap is not None

_START_TLS = "1.3.6.1.4.1.1466.20037"
"""RFC 4511, section 4.14."""

_NO_ATTRIBUTES = "1.1"
"""RFC 4511, section 4.5.1.8."""

_SEQUENCE = 0x30
"""What every LDAP message begins with (RFC 4511, section 4.1.1)."""


@dataclass(frozen=True)
class DirectoryTarget:
    """A server, and what to ask it.

    ``authority`` holds the PEM certificates that are trusted, nothing for the system's, and
    ``certificate_name`` the name in its certificate, nothing for ``host``. ``user`` is a DN or,
    for Active Directory, also ``name@domain``; without one the bind is anonymous. Without a filter
    the entry ``base`` itself is read, and without a base the RootDSE.
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
    certificate_name: str = ""

    def __str__(self) -> str:
        return f"{printable(self.host)} port {self.port}"

    def without_credential(self) -> DirectoryTarget:
        """Return the same server with what it may show anybody: its RootDSE."""
        return replace(self, user="", password="", base="", filter="", replication=False)


class Session:
    """A conversation with one server; to be used as a context, which ends it."""

    def __init__(self, sock: socket.socket, target: DirectoryTarget) -> None:
        self.stream = WireStream(sock, str(target))
        self.target = target
        self._ours, theirs = socket.socketpair()
        self._ours.setblocking(False)
        # libldap waits for readiness first, but would wait in read(2) for the rest of a message.
        theirs.setblocking(False)
        self._unread = theirs.dup()
        # The descriptor is libldap's to close from here on.
        self._client = ldap.initialize("ldap://", fileno=theirs.detach())
        self._client.set_option(ldap.OPT_REFERRALS, 0)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ldap.LDAPError):
            self._client.unbind_ext()
        self.stream.close(self._written)
        self._unread.close()
        self._ours.close()

    def secure(self, deadline: Deadline) -> None:
        """Turn to TLS, by the extended operation if the port begins in clear text."""
        target = self.target
        if target.security == Security.STARTTLS:
            with self._answers(Outcome.DOWN, "starttls_refused", "does not start TLS"):
                message = self._client.extop(ExtendedRequest(_START_TLS, None))
                self._wait(message, deadline, alone=True)
        name = target.certificate_name or target.host
        self.stream.start_tls(target.authority, name, deadline)

    def bind(self, deadline: Deadline) -> Told:
        """Bind as the target's user; return what the server says about the password.

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
        ask = [RequestControl(password.POLICY, criticality=False)]
        with self._answers(Outcome.CREDENTIAL, "", f"refuses {printable(target.user)}"):
            message = self._client.simple_bind(target.user, target.password, serverctrls=ask)
            return password.read(self._wait(message, deadline).controls)

    def bind_anonymously(self, deadline: Deadline) -> bool:
        """End what was bound before; return whether the server has agreed."""
        try:
            self._wait(self._client.simple_bind("", ""), deadline)
        except (Fault, TimeoutError, ldap.LDAPError):
            return False
        return True

    def shows_root(self, deadline: Deadline) -> bool:
        """Return whether anonymous clients may read the RootDSE; ends what was bound before."""
        if not self.bind_anonymously(deadline):
            return False
        try:
            return bool(self._search("", "", [_NO_ATTRIBUTES], deadline).entries)
        except (Fault, TimeoutError, ldap.LDAPError):
            return False

    def search(self, deadline: Deadline) -> int:
        """Search as the target says; return the number of entries that were read, at most one.

        Raises:
            Fault: there was none.
        """
        target = self.target
        wanted = f"{printable(target.filter or 'the entry')} below {target.base or 'the RootDSE'}"
        with self._answers(Outcome.REFUSED, "", f"does not show {wanted}"):
            found = self._first(target.base, target.filter, deadline)
        if found.entries:
            return len(found.entries)
        # References are about what lies elsewhere below the base, found or not (RFC 4511, 4.5.3):
        # a domain of Active Directory adds three of them to every search from its root.
        elsewhere = f" Parts below the base are elsewhere: {found.references[0]}." if (
            found.references
        ) else ""  # fmt: skip
        raise Fault(
            *(Outcome.REFUSED, "nothing_found"),
            f"{target} answers, but finds nothing for {wanted}: look at base, filter and access "
            f"rights.{elsewhere}",
        )

    def _first(self, base: str, query: str, deadline: Deadline) -> _Answer:
        """Ask for one entry, in the two ways that servers know of: some know one of them only."""
        # Samba takes no notice of the size limit, and sends everything that matches.
        page = [SimplePagedResultsControl(criticality=False, size=1, cookie="")]
        try:
            return self._search(base, query, [_NO_ATTRIBUTES], deadline, page)
        except ldap.ADMINLIMIT_EXCEEDED:
            # OpenLDAP where paged results are disabled, critical or not.
            return self._search(base, query, [_NO_ATTRIBUTES], deadline)

    def attributes(
        self, base: str, names: Sequence[str], deadline: Deadline, query: str = ""
    ) -> dict[str, list[str]]:
        """Return ``binary`` as text."""
        return {
            name: [value.decode("utf-8", "replace") for value in values]
            for name, values in self.binary(base, names, deadline, query).items()
        }

    def binary(
        self, base: str, names: Sequence[str], deadline: Deadline, query: str = ""
    ) -> dict[str, list[bytes]]:
        """Return attributes of one entry by their lower-case names, nothing if it is not shown."""
        try:
            found = self._search(base, query, list(names), deadline).entries
        except (Fault, TimeoutError, ldap.LDAPError, ValueError):
            # Most servers do not tell everybody, which is no fault of theirs.
            return {}
        return {
            name.lower(): values
            for _, attributes in found[:1]
            for name, values in attributes.items()
        }

    def _search(
        self,
        base: str,
        query: str,
        attributes: list[str],
        deadline: Deadline,
        controls: Sequence[RequestControl] = (),
    ) -> _Answer:
        """Search for one entry."""
        scope = ldap.SCOPE_SUBTREE if query else ldap.SCOPE_BASE
        message = self._client.search_ext(
            *(base, scope, query or "(objectClass=*)", attributes),
            serverctrls=list(controls),
            timeout=max(1, int(deadline.remaining())),
            sizelimit=1,
        )
        return self._wait(message, deadline)

    def _wait(self, message: int, deadline: Deadline, *, alone: bool = False) -> _Answer:
        """Carry bytes until a request is answered; the first entry is an answer, whatever follows.

        ``alone``: nothing may come behind the answer.
        """
        answer = _Answer()
        heard = b""
        self.stream.send(self._written(), deadline)
        while True:
            kind, data, _, controls, *_ = self._client.result4(
                message, 0, 0, 0, 0, 1, resp_ctrl_classes=_UNDECODED
            )
            if kind == ldap.RES_SEARCH_ENTRY:
                answer.entries += data
                return answer
            if kind == ldap.RES_SEARCH_REFERENCE:
                answer.references += [printable(url) for _, urls, *_ in data for url in urls]
            elif kind is not None:
                answer.controls |= {one.controlType: one.encodedControlValue for one in controls}
                return answer
            elif not select.select([self._unread], [], [], 0)[0]:
                received = self.stream.receive(deadline)
                if not heard and received[0] != _SEQUENCE:
                    # libldap would take some letters for a long message and wait for its rest.
                    raise Fault(
                        *(Outcome.DOWN, "not_ldap"),
                        f"{self.target} does not speak LDAP, it said "
                        f"{printable(received[:60].decode('ascii', 'replace'))!r}: look at the "
                        "port and at the security setting.",
                    )
                heard = heard + received if alone else received
                if alone and len(heard) > _size_of_message(heard):
                    # RFC 4511, section 4.14.1; it could pass for something said under TLS.
                    raise Fault(
                        *(Outcome.DOWN, "starttls_refused"),
                        f"{self.target} kept talking in clear text after it agreed to TLS.",
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
            raise _fault(self.target, problem, told, outcome, error, what) from None


@dataclass
class _Answer:
    """What came for one request; the values of response controls by their types."""

    entries: list[Any] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    controls: dict[str, bytes] = field(default_factory=dict)


if HAS_CLIENT:

    class _Undecoded(ResponseControl):
        """A control whose value nobody has looked at: decoders raise on values that are none."""

        def decodeControlValue(self, encodedControlValue: bytes | None) -> None:  # noqa: N802, N803
            self.encodedControlValue = encodedControlValue or b""

    _UNDECODED = dict.fromkeys((password.POLICY, password.EXPIRED, password.EXPIRING), _Undecoded)


# --- What result codes mean ---------------------------------------------------------------------

_ELSEWHERE = re.compile(r"ldaps?://\S+")

_TOO_WEAK = re.compile(r"\bSSF\b|secure connection|confidentiality|encrypt", re.IGNORECASE)
"""What OpenLDAP and 389-ds say where RFC 4511 has a code of its own for it."""

_ONLY_CHANGE = re.compile(r"restricted to bind", re.IGNORECASE)
"""What OpenLDAP's ppolicy answers to a user who must change the password."""


def _fault(
    target: DirectoryTarget,
    problem: Exception,
    told: Mapping[str, Any],
    outcome: Outcome,
    error: str,
    what: str,
) -> Fault:
    """Return what a result code means here (RFC 4511, appendix A)."""
    description = str(told.get("desc", type(problem).__name__))
    diagnostic = printable(str(told.get("info", "")))
    if isinstance(problem, ldap.LOCAL_ERROR | ldap.DECODING_ERROR | ldap.SERVER_DOWN):
        return Fault(
            *(Outcome.DOWN, "not_ldap"),
            f"{target} does not speak LDAP: look at the port and at the security setting.",
            diagnostic,
        )
    if isinstance(problem, ldap.REFERRAL):
        elsewhere = _ELSEWHERE.search(diagnostic)
        return Fault(
            *(Outcome.REFERRAL, "referral"),
            f"{target} sends its clients elsewhere: "
            f"{elsewhere[0] if elsewhere else 'it does not say where'}.",
            diagnostic,
        )
    if isinstance(problem, ldap.FILTER_ERROR):
        return Fault(
            Outcome.REFUSED, "filter_error", "The filter is not one (RFC 4515): correct it."
        )
    words = f"{description}: {diagnostic}" if diagnostic else description
    if isinstance(problem, ldap.BUSY | ldap.UNAVAILABLE):
        detail = f"{target} says that it cannot serve now ({words})."
        return Fault(Outcome.DOWN, error_class(description), detail, diagnostic)
    if _wants_security(problem, diagnostic):
        return Fault(Outcome.SECURITY, "security_required", _weak(target, words), diagnostic)
    if known := _about_the_password(target, problem, told, diagnostic):
        name, meaning = known
        return Fault(Outcome.CREDENTIAL, name, f"{target} {what}: {meaning}.", diagnostic)
    return Fault(
        outcome, error or error_class(description), f"{target} {what} ({words}).", diagnostic
    )


def _wants_security(problem: Exception, diagnostic: str) -> bool:
    if isinstance(problem, ldap.STRONG_AUTH_REQUIRED | ldap.CONFIDENTIALITY_REQUIRED):
        return True
    return isinstance(problem, ldap.UNWILLING_TO_PERFORM) and bool(_TOO_WEAK.search(diagnostic))


def _weak(target: DirectoryTarget, words: str) -> str:
    if target.security == Security.PLAIN:
        return (
            f"{target} demands a protected connection ({words}): choose ldaps or StartTLS for it. "
            "The password was not looked at."
        )
    return (
        f"{target} demands more than TLS and a simple bind ({words}): look at its settings for "
        "encryption strength, signing and client certificates."
    )


def _about_the_password(
    target: DirectoryTarget, problem: Exception, told: Mapping[str, Any], diagnostic: str
) -> tuple[str, str] | None:
    """Return the error class and meaning of a result that is about the target's password."""
    if not target.user:
        return None
    if known := active_directory(diagnostic):
        return known
    controls = {kind: value or b"" for kind, _, value in told.get("ctrls", ())}
    reason = password.read(controls).reason
    if isinstance(problem, ldap.UNWILLING_TO_PERFORM | ldap.INSUFFICIENT_ACCESS) and (
        password.EXPIRED in controls or _ONLY_CHANGE.search(diagnostic)
    ):
        reason = password.MUST_RESET
    return (reason, password.MEANINGS[reason]) if reason else None


def _size_of_message(data: bytes) -> int:
    """Return the octets of the BER element that begins ``data`` (X.690, 8.1.3)."""
    if len(data) < 2 or data[1] < 0x80:
        return 2 + (data[1] if len(data) > 1 else 0)
    octets = data[1] & 0x7F
    return 2 + octets + int.from_bytes(data[2 : 2 + octets])
