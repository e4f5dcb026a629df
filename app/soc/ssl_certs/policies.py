"""What a policy asks of keys, hashes, TLS versions and lifetimes; expiry.py has the thresholds."""

from dataclasses import dataclass

TLS_VERSIONS = ("SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
"""As OpenSSL names them, the oldest first."""


@dataclass(frozen=True)
class StrengthLimits:
    """The least that is strong enough.

    The defaults are what OpenSSL takes at its security level 2, 112 bits, which Debian has set
    (SSL_CTX_set_security_level(3)), and the TLS versions that are not forbidden (RFC 8996).
    """

    rsa_bits: int = 2048
    """Of RSA and DSA keys."""
    curve_bits: int = 224
    takes_sha1: bool = False
    tls_version: str = "TLSv1.2"
    lifetime_days: int | None = None
    """Of the server's certificate; None for what the rules of public authorities allow."""
