"""What servers tell about a password when it is used: expired, to be changed, about to expire.

Two kinds of response controls: that of draft-behera-ldap-password-policy, section 6, which has to
be asked for, and the two of 389-ds and its relatives (draft-vchu-ldap-pwd-policy), which come by
themselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ldap.controls.ppolicy import PasswordPolicyResponseValue
from pyasn1.codec.ber import decoder
from pyasn1.error import PyAsn1Error

POLICY = "1.3.6.1.4.1.42.2.27.8.5.1"
EXPIRED = "2.16.840.1.113730.3.4.4"
EXPIRING = "2.16.840.1.113730.3.4.5"

ALREADY_EXPIRED = "password_expired"
ACCOUNT_LOCKED = "account_locked"
MUST_RESET = "must_reset_password"
GRACE_LOGIN = "grace_login"

MEANINGS: Mapping[str, str] = {
    ALREADY_EXPIRED: "the password has expired",
    ACCOUNT_LOCKED: "the account is locked out",
    MUST_RESET: "the user must set a new password first",
}

# draft-behera-ldap-password-policy-11, section 6.2; the other errors answer modifications.
_ERRORS = {0: ALREADY_EXPIRED, 1: ACCOUNT_LOCKED, 2: MUST_RESET}


@dataclass(frozen=True)
class Told:
    """What the controls of a bind's answer say about the password.

    ``expires_in`` are the seconds until it expires, ``grace`` the binds that an expired one has
    left; None where nothing is said. ``expired`` stands for 389-ds' control, which means both
    that the password has expired and that it must be changed.
    """

    error: str = ""
    expires_in: int | None = None
    grace: int | None = None
    expired: bool = False

    @property
    def reason(self) -> str:
        """The error class of a bind that was refused, or nothing."""
        return self.error or (ALREADY_EXPIRED if self.expired else "")

    @property
    def problem(self) -> tuple[str, str] | None:
        """The error class of a bind that was accepted, and its meaning, if there is a problem."""
        if self.grace is not None:
            meaning = (
                f"the password has expired, {self.grace} grace logins are left, and each bind uses "
                "one up"
            )
            return GRACE_LOGIN, meaning
        error = self.error or (MUST_RESET if self.expired else "")
        return (error, MEANINGS[error]) if error else None


def read(controls: Mapping[str, bytes]) -> Told:
    """Return what response controls say, by their types; what cannot be decoded says nothing."""
    error, expires_in, grace = _policy(controls.get(POLICY, b""))
    if expires_in is None and (seconds := controls.get(EXPIRING, b"")).isdigit():
        expires_in = int(seconds[:10])
    return Told(error, expires_in, grace, EXPIRED in controls)


def _policy(value: bytes) -> tuple[str, int | None, int | None]:
    if not value:
        return "", None, None
    try:
        found, _ = decoder.decode(value, asn1Spec=PasswordPolicyResponseValue())
        warning = found.getComponentByName("warning")
        code = found.getComponentByName("error")
        error = _ERRORS.get(int(code), "") if code.hasValue() else ""
        if not warning.hasValue():
            return error, None, None
        kind, seconds = warning.getName(), int(warning.getComponent())
    except (PyAsn1Error, ValueError, TypeError):
        return "", None, None
    if kind == "timeBeforeExpiration":
        return error, seconds, None
    return error, None, seconds
