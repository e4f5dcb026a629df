"""Logging in at a relay with an access token: XOAUTH2, with OAuth 2.0 client credentials.

RFC 6749, 4.4, for the token; for the mechanism, which no RFC has, learn.microsoft.com,
"Authenticate an IMAP, POP or SMTP connection using OAuth".
"""

import smtplib
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
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

MECHANISM = "XOAUTH2"


class TokenProblem(smtplib.SMTPException):
    """There is no token: the endpoint cannot be reached, or refuses the client (``refused``)."""

    def __init__(self, words: str, *, refused: bool = False) -> None:
        super().__init__(words)
        self.refused = refused


class _Trusting(HTTPAdapter):
    """Verifies by a bundle of authorities on top of the system's store."""

    def __init__(self, authorities: str) -> None:
        self._authorities = authorities
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Make the pool (the library's own name)."""
        context = ssl.create_default_context()
        if self._authorities:
            context.load_verify_locations(cadata=self._authorities)
        super().init_poolmanager(*args, **options, ssl_context=context)


@dataclass(frozen=True)
class TokenClient:
    """A client of an authorization server; ``authorities`` is a PEM bundle, or nothing."""

    url: str
    client_id: str
    secret: str = field(repr=False)
    scope: str = ""
    authorities: str = field(default="", repr=False)

    def fetch(self) -> dict[str, Any]:
        """Return a new token, with ``expires_at`` in seconds since 1970.

        Raises:
            TokenProblem: the endpoint cannot be reached, or refuses the client.
        """
        session = OAuth2Session(
            self.client_id,
            self.secret,
            # Form-encoded as it is: Basic would need the encoding of RFC 6749, 2.3.1 on top.
            token_endpoint_auth_method="client_secret_post",  # noqa: S106 (a method's name)
            scope=self.scope or None,
        )
        with session:
            session.trust_env = False
            session.mount("https://", _Trusting(self.authorities))
            try:
                token = session.fetch_token(
                    self.url,
                    grant_type="client_credentials",
                    timeout=TIMEOUT,
                    allow_redirects=False,
                )
            except (AuthlibBaseError, RequestException, ValueError) as error:
                words = f"no token from {self.url}: {line(str(error), 300)}"
                refused = isinstance(error, AuthlibBaseError)
                raise TokenProblem(words, refused=refused) from error
        if not (token or {}).get("access_token"):
            raise TokenProblem(f"no token in the answer of {self.url}", refused=True)
        return dict(token)


def ends_soon(token: Mapping[str, Any]) -> bool:
    """Return whether a token is not used any more; one without an end is used until refused."""
    expires_at = token.get("expires_at")
    return expires_at is not None and time.time() > float(expires_at) - LEEWAY


def response(user: str, token: Mapping[str, Any]) -> str:
    """Return the initial response of the mechanism."""
    return f"user={user}\x01auth=Bearer {token['access_token']}\x01\x01"


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


def authenticate(relay: smtplib.SMTP, user: str, token: Mapping[str, Any]) -> None:
    """Log in with a token.

    Raises:
        SMTPException: the relay refuses it, or knows no XOAUTH2.
    """

    def answer(challenge: bytes | None = None) -> str:
        # A challenge holds the reason of a refusal, which follows an empty answer.
        return response(user, token) if challenge is None else ""

    relay.auth(MECHANISM, answer)


def _auth(relay: smtplib.SMTP, user: str) -> None:
    global _token
    if _token is None or ends_soon(_token):
        _token = _client().fetch()
    authenticate(relay, user, _token)


def _client() -> TokenClient:
    return TokenClient(
        settings.SMTP_OAUTH_URL,
        settings.SMTP_OAUTH_CLIENT_ID,
        secret("smtp_password"),
        settings.SMTP_OAUTH_SCOPE,
        (settings.IDENTITY / "ca.pem").read_text(),
    )
