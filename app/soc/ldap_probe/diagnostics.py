"""What directory servers say when they refuse, in words an operator can act on."""

import re
from collections.abc import Mapping
from enum import StrEnum


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


class Outcome(StrEnum):
    """What a probe amounts to."""

    OK = "ok"
    DOWN = "down"
    TIMEOUT = "timeout"
    CERTIFICATE = "certificate"
    SECURITY = "security"
    CREDENTIAL = "credential"
    REFERRAL = "referral"
    REFUSED = "refused"


ANSWERED = set(Outcome) - {Outcome.DOWN, Outcome.TIMEOUT}
"""Outcomes of a server that is there, whatever else is wrong."""

# Microsoft, "System Error Codes" and "Troubleshooting LDAP bind errors": the hexadecimal number
# behind "data" in the diagnostic message of result 49.
ACTIVE_DIRECTORY: Mapping[str, tuple[str, str]] = {
    "525": ("user_not_found", "the user does not exist"),
    "52e": ("wrong_password", "the user does not exist, or the password is wrong"),
    "530": ("logon_hours", "the user may not log on at this time"),
    "531": ("workstation", "the user may not log on from this machine"),
    "532": ("password_expired", "the password has expired"),
    "533": ("account_disabled", "the account is disabled"),
    "701": ("account_expired", "the account has expired"),
    "773": ("must_reset_password", "the user must set a new password first"),
    "775": ("account_locked", "the account is locked out"),
}

_DATA = re.compile(r"AcceptSecurityContext error, data ([0-9a-f]+)", re.IGNORECASE)

_ERROR_NAMES = {
    "Can't contact LDAP server": "connection_lost",
}


def active_directory(diagnostic: str) -> tuple[str, str] | None:
    """Return the error class of an Active Directory diagnostic and its meaning, if it is one."""
    found = _DATA.search(diagnostic)
    if not found:
        return None
    code = found[1].lower()
    return ACTIVE_DIRECTORY.get(code, (f"data_{code}", f"Active Directory says data {code}"))


def error_class(description: str) -> str:
    """Return libldap's description of a result as one word, such as ``invalid_credentials``."""
    return _ERROR_NAMES.get(description) or re.sub(r"\W+", "_", description.lower()).strip("_")


def printable(text: str, longest: int = 300) -> str:
    """Return what a server said as one bounded line, its control characters replaced."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(line.split())[:longest]
