"""The two ends of a route as its sessions take them, and what can be wrong with one."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from soc.notify.xoauth2 import TokenClient


class LinkSecurity(StrEnum):
    """How a session is protected (RFC 8314)."""

    TLS = "tls"
    STARTTLS = "starttls"
    NONE = "none"


class Fault(StrEnum):
    """Why a session did not do what it was for."""

    UNREACHABLE = "unreachable"
    CERTIFICATE = "certificate"
    LOGIN = "login"
    REFUSED = "refused"
    DEFERRED = "deferred"
    """Refused for now: the same mail may be taken later (RFC 5321, 4.2.1)."""
    FULL = "full"


class RoutePhase(StrEnum):
    """What takes time before a mail is on its way, in its order."""

    CONNECT = "connect"
    TLS = "tls"
    LOGIN = "login"
    SUBMIT = "submit"


class EndFault(Exception):
    """One end of a route failed; the text is for people."""

    def __init__(self, fault: Fault, words: str) -> None:
        super().__init__(words)
        self.fault = fault


class MailLogin(NamedTuple):
    """A user and their password, or who gets a token for them."""

    user: str
    password: str = ""
    tokens: TokenClient | None = None


@dataclass(frozen=True)
class MailEnd:
    """A server of a route; ``authorities`` is a PEM bundle, nothing means the system's."""

    host: str
    port: int
    security: LinkSecurity
    authorities: str = field(default="", repr=False)
    login: MailLogin | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def context(self) -> ssl.SSLContext:
        """Return what the server's certificate is verified by."""
        return ssl.create_default_context(cadata=self.authorities or None)

    def certificate_fault(self, error: ssl.SSLCertVerificationError) -> EndFault:
        """Return the fault of a certificate that is not taken."""
        words = f"The certificate of {self} is not valid: {error.verify_message}."
        return EndFault(Fault.CERTIFICATE, words)

    def unreachable(self, error: Exception) -> EndFault:
        """Return the fault of a server that cannot be reached, or leaves in the middle."""
        words = str(error) or type(error).__name__
        return EndFault(Fault.UNREACHABLE, f"{self} cannot be used: {words[:300]}")


class Stopwatch:
    """Milliseconds by phases."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._since = time.monotonic()

    def lap(self, phase: RoutePhase) -> None:
        """Book the time since the last lap."""
        now = time.monotonic()
        self.spent[phase] = self.spent.get(phase, 0.0) + 1000 * (now - self._since)
        self._since = now


_tokens: dict[TokenClient, Mapping[str, Any]] = {}
"""The tokens of this process."""


def token_of(tokens: TokenClient, *, fresh: bool = False) -> Mapping[str, Any]:
    """Return a kept token, or a new one where there is none that lasts.

    Raises:
        EndFault: there is none.
    """
    # Nobody else needs the library.
    from soc.notify import xoauth2

    kept = None if fresh else _tokens.get(tokens)
    if kept is None or xoauth2.ends_soon(kept):
        try:
            kept = _tokens[tokens] = tokens.fetch()
        except xoauth2.TokenProblem as problem:
            fault = Fault.LOGIN if problem.refused else Fault.UNREACHABLE
            raise EndFault(fault, f"There is {problem}") from problem
    return kept
