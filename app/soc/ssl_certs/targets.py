"""What is probed, an endpoint with the protocol that is spoken before TLS, and why it may fail.

Apart from the probe, because models need it and no other process should load a TLS library.
"""

from dataclasses import dataclass
from enum import StrEnum


class StartTls(StrEnum):
    """The protocol that is spoken before TLS starts."""

    NONE = ""
    SMTP = "smtp"
    IMAP = "imap"
    POP3 = "pop3"
    LDAP = "ldap"
    POSTGRESQL = "postgresql"
    MYSQL = "mysql"
    XMPP = "xmpp"
    XMPP_SERVER = "xmpp-server"
    FTP = "ftp"


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
