"""Probe one directory server as its clients use it: resolve, connect, TLS, bind, search.

Each phase is timed by itself (``session`` has the protocol, ``wire`` the connection).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from soc.ldap_probe import replicas
from soc.ldap_probe.diagnostics import Outcome, Phase, Security, printable
from soc.ldap_probe.session import HAS_CLIENT, DirectoryTarget, Session
from soc.ldap_probe.wire import Deadline, Fault, connect, resolve

__all__ = ["HAS_CLIENT", "DirectoryTarget", "Finding", "probe"]

NETWORK_SECONDS = 5.0
"""For the way to the server: name, connection and TLS together."""

OPERATION_SECONDS = 10.0
"""For what is asked of it: bind and search together."""

MOST_SECONDS = NETWORK_SECONDS + OPERATION_SECONDS


@dataclass
class Finding:
    """What a probe found; ``milliseconds`` has the phases that were begun.

    ``bound`` says whether the credential was taken, None if no server has looked at it;
    ``password_expires_in`` are the seconds that its password has left, where the server says so.
    ``copy`` is how
    far its copy of the data is, if that was asked.
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
    password_expires_in: int | None = None
    copy: replicas.Copy | None = None

    @property
    def total(self) -> float:
        """The milliseconds of all phases."""
        return sum(self.milliseconds.values())


def _always() -> bool:
    return True


def probe(
    target: DirectoryTarget,
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
        with Session(sock, target) as session:
            if target.security != Security.PLAIN:
                with timed(Phase.TLS):
                    session.secure(deadline)
                finding.tls_version = session.stream.tls_version
            if target.user and not may_bind():
                target = session.target = target.without_credential()
            deadline = Deadline(operation_seconds)
            if target.user:
                _bind(session, finding, deadline, timed)
            with timed(Phase.SEARCH):
                finding.entries = session.search(deadline)
            if target.replication:
                finding.copy = replicas.read(session, deadline)
    except Fault as fault:
        finding.outcome, finding.error = fault.outcome, fault.error
        finding.detail, finding.diagnostic = fault.detail, fault.diagnostic
    except TimeoutError:
        finding.outcome, finding.error = Outcome.TIMEOUT, f"{phase}_timeout"
        finding.detail = (
            f"{target} accepted the connection but {_LATE[phase]} within "
            f"{deadline.seconds:g} s: {_LOOK_AT.get(phase, 'look at its load')}."
        )
    except ValueError as error:
        # LDAP's strings are UTF-8 (RFC 4511, section 4.1.2), and python-ldap insists on it.
        finding.outcome, finding.error = Outcome.DOWN, "not_text"
        finding.detail = f"{target} sent text that is none ({printable(str(error))})."
    return finding


def _bind(
    session: Session,
    finding: Finding,
    deadline: Deadline,
    timed: Callable[[Phase], contextlib.AbstractContextManager[None]],
) -> None:
    """Bind, and record what became of the credential.

    Raises:
        Fault: it was refused, or the password will soon be of no use any more.
    """
    try:
        with timed(Phase.BIND):
            told = session.bind(deadline)
    except Fault as fault:
        if fault.outcome == Outcome.CREDENTIAL and fault.error != "no_password":
            finding.bound = False
            with timed(Phase.SEARCH):
                shown = "shows" if session.shows_root(deadline) else "does not show"
            fault.detail += f" It answers, and {shown} its RootDSE to anonymous clients."
        raise
    finding.password_expires_in = told.expires_in
    # A grace login is one of a few: like a refused bind, it must not be repeated.
    finding.bound = told.grace is None
    if told.problem:
        error, meaning = told.problem
        user = printable(session.target.user)
        detail = f"{session.target} accepts {user}, but {meaning}."
        raise Fault(Outcome.CREDENTIAL, error, detail)


_LATE = {
    Phase.RESOLVE: "its name was not resolved",
    Phase.CONNECT: "the connection was not made",
    Phase.TLS: "did not complete TLS",
    Phase.BIND: "the bind was not answered",
    Phase.SEARCH: "did not answer the search",
}

_LOOK_AT = {
    Phase.BIND: (
        "look at its load, at the backend that holds the user, and for a read-only controller at "
        "its writable partner"
    ),
}
