"""Logging in at a relay with an access token: XOAUTH2, with OAuth 2.0 client credentials.

RFC 6749, 4.4, for the token; for the mechanism, which no RFC has, learn.microsoft.com,
"Authenticate an IMAP, POP or SMTP connection using OAuth".
"""

import smtplib
import ssl
from typing import Any

from authlib.common.errors import AuthlibBaseError
from authlib.integrations.requests_client import OAuth2Session
from django.conf import settings
from requests.adapters import HTTPAdapter
from requests.exceptions import RequestException

from soc.notify.templates import line
from soc.provision.identity import secret

TIMEOUT = 10.0
"""Seconds that the token's endpoint may take."""

LEEWAY = 300
"""Seconds before its end at which a token is not used any more."""

_MECHANISM = "XOAUTH2"


class TokenProblem(smtplib.SMTPException):
    """There is no token: the endpoint cannot be reached, or refuses the client."""


class _Trusting(HTTPAdapter):
    """Verifies by the system's store and the site's own CA, as the way to the relay does."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Make the pool (the library's own name)."""
        context = ssl.create_default_context()
        context.load_verify_locations(settings.IDENTITY / "ca.pem")
        super().init_poolmanager(*args, **options, ssl_context=context)


_token: dict[str, Any] | None = None
"""The token of this process, with ``expires_at`` in seconds since 1970."""


def login(relay: smtplib.SMTP, user: str) -> None:
    """Log in with the kept token; with another one if the relay refuses that.

    Raises:
        TokenProblem: there is no token.
        SMTPException: the relay refuses a token of this moment, or knows no XOAUTH2.
    """
    relay.ehlo_or_helo_if_needed()
    kept = _token is not None
    try:
        _auth(relay, user)
    except smtplib.SMTPAuthenticationError:
        # A token that was revoked, or a client whose rights have just been granted.
        drop()
        if not kept:
            raise
        _auth(relay, user)


def drop() -> None:
    """Drop the kept token."""
    global _token
    _token = None


def _auth(relay: smtplib.SMTP, user: str) -> None:
    response = f"user={user}\x01auth=Bearer {_access_token()}\x01\x01"

    def answer(challenge: bytes | None = None) -> str:
        # A challenge holds the reason of a refusal, which follows an empty answer.
        return response if challenge is None else ""

    relay.auth(_MECHANISM, answer)


def _access_token() -> str:
    """Return the kept token, or a new one where that ends soon."""
    global _token
    session = OAuth2Session(
        settings.SMTP_OAUTH_CLIENT_ID,
        secret("smtp_password"),
        # Form-encoded as it is: Basic would need the encoding of RFC 6749, 2.3.1 on top.
        token_endpoint_auth_method="client_secret_post",  # noqa: S106 (a method's name)
        scope=settings.SMTP_OAUTH_SCOPE or None,
        token=_token,
        leeway=LEEWAY,
    )
    with session:
        if not session.token or session.token.is_expired(leeway=LEEWAY):
            session.trust_env = False
            session.mount("https://", _Trusting())
            try:
                _token = session.fetch_token(
                    settings.SMTP_OAUTH_URL,
                    grant_type="client_credentials",
                    timeout=TIMEOUT,
                    allow_redirects=False,
                )
            except (AuthlibBaseError, RequestException, ValueError) as error:
                words = line(str(error), 300)
                raise TokenProblem(f"no token from {settings.SMTP_OAUTH_URL}: {words}") from error
    token = (_token or {}).get("access_token")
    if not token:
        raise TokenProblem(f"no token in the answer of {settings.SMTP_OAUTH_URL}")
    return str(token)
