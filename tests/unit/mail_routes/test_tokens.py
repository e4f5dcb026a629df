"""Access tokens at both ends of a route: kept, and fetched again when one is refused."""

from __future__ import annotations

import smtplib
import time
from typing import Any

import pytest
from imapclient.exceptions import LoginError

from soc.mail_routes import mailbox, submission
from soc.mail_routes.ends import EndFault, Fault, LinkSecurity, MailEnd, MailLogin
from soc.notify.xoauth2 import TokenClient, TokenProblem

URL = "https://login.example/token"


class TokenServer:
    """Gives tokens one after the other; servers of mail take those that are not revoked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.given = 0
        self.problem: TokenProblem | None = None
        self.revoked: set[str] = set()
        self.shown: list[str] = []
        monkeypatch.setattr(TokenClient, "fetch", lambda _: self.fetch())

    def fetch(self) -> dict[str, Any]:
        if self.problem:
            raise self.problem
        self.given += 1
        return {"access_token": f"token {self.given}", "expires_at": time.time() + 3600}

    def accepts(self, token: str) -> bool:
        self.shown.append(token)
        return token not in self.revoked


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> TokenServer:
    made = TokenServer(monkeypatch)
    monkeypatch.setattr("soc.mail_routes.ends._tokens", {})

    def authenticate(_: smtplib.SMTP, user: str, token: dict[str, Any]) -> None:
        if not made.accepts(token["access_token"]):
            raise smtplib.SMTPAuthenticationError(535, b"5.7.3 expired")

    monkeypatch.setattr("soc.notify.xoauth2.authenticate", authenticate)
    return made


class Session:
    """An SMTP session and an IMAP client, as far as a login needs them."""

    def __init__(self, server: TokenServer) -> None:
        self.server = server

    def ehlo_or_helo_if_needed(self) -> None:
        """Say nothing."""

    def oauth2_login(self, user: str, token: str) -> None:
        if not self.server.accepts(token):
            raise LoginError("b'AUTHENTICATE failed.'")


END = MailEnd(
    "mail.example", 587, LinkSecurity.STARTTLS,
    login=MailLogin("probe", tokens=TokenClient(URL, "client", "secret")),
)  # fmt: skip
LOGINS: list[Any] = [submission._log_in, mailbox._log_in]


@pytest.mark.parametrize("log_in", LOGINS, ids=["submission", "mailbox"])
def test_a_token_is_kept_and_replaced_when_it_is_refused(server: TokenServer, log_in: Any) -> None:
    log_in(END, Session(server))
    log_in(END, Session(server))
    assert server.shown == ["token 1", "token 1"]
    server.revoked.add("token 1")
    log_in(END, Session(server))
    assert server.shown[2:] == ["token 1", "token 2"]
    server.revoked |= {"token 2", "token 3"}
    with pytest.raises(EndFault, match="refuses the login of probe") as caught:
        log_in(END, Session(server))
    assert caught.value.fault == Fault.LOGIN


@pytest.mark.parametrize("log_in", LOGINS, ids=["submission", "mailbox"])
@pytest.mark.parametrize(("refused", "fault"), [(True, Fault.LOGIN), (False, Fault.UNREACHABLE)])
def test_without_a_token_there_is_no_login(
    server: TokenServer, log_in: Any, refused: bool, fault: Fault
) -> None:
    server.problem = TokenProblem(f"no token from {URL}: invalid_client", refused=refused)
    with pytest.raises(EndFault, match="no token from") as caught:
        log_in(END, Session(server))
    assert caught.value.fault == fault
    assert server.shown == []
