"""Looks for the mails of a route in a mailbox, and deletes them (RFC 9051, 9208, 6154)."""

import re
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from email import message_from_bytes
from typing import Any

from imapclient import IMAPClient
from imapclient.exceptions import IMAPClientAbortError, IMAPClientError, LoginError
from imapclient.imapclient import JUNK

from soc.mail_routes import marks
from soc.mail_routes.ends import EndFault, Fault, LinkSecurity, MailEnd, MailLogin, token_of
from soc.mail_routes.marks import Hop

TIMEOUT = 10.0
"""Seconds that a server may take over connecting, or over one reply."""

PATIENCE = 30.0
"""Seconds that a whole look may take: with a submission, less than the queue's time limit."""

MOST_FOUND = 50
"""Mails of one route that a look takes from a folder."""

MAIL_OCTETS = 4_000
"""About what a mail of ours needs of a quota."""

_HEADER = f"BODY.PEEK[HEADER.FIELDS (RECEIVED {marks.ROUTE.upper()} {marks.MARK.upper()})]"
_BYTES = re.compile(r"""^b(['"])(.*)\1$""")
_BUSY = ("[UNAVAILABLE]", "[INUSE]", "[LIMIT]")
"""Codes of a refused login that say nothing of the password (RFC 5530, 3)."""


@dataclass(frozen=True)
class FoundMail:
    """A mail of the route, where it lies, and when the mailbox got it."""

    uid: int
    mark: str
    folder: str
    is_spam: bool
    arrived_at: datetime
    hops: Sequence[Hop]


class OpenMailbox:
    """A mailbox that is logged in to."""

    def __init__(self, end: MailEnd, client: IMAPClient, until: float) -> None:
        self._end, self._client, self._until = end, client, until

    def find(self, token: str, inbox: str, spam: str) -> list[FoundMail]:
        """Return the mails of a route in its folder and in the one for spam.

        Without a name the latter is the one that the server says it is, if any.

        Raises:
            EndFault: the mailbox cannot be read.
        """
        with self._faults():
            folders = dict.fromkeys((inbox, spam or self._junk()))
            return [
                mail
                for folder in folders
                if folder
                for mail in self._find(token, folder, is_spam=folder != inbox)
            ]

    def delete(self, mails: Sequence[FoundMail]) -> None:
        """Delete mails, and nothing that somebody else has marked as deleted.

        Raises:
            EndFault: the mailbox cannot be written.
        """
        with self._faults():
            for folder in dict.fromkeys(mail.folder for mail in mails):
                self._select(folder)
                uids = [mail.uid for mail in mails if mail.folder == folder]
                self._client.delete_messages(uids, silent=True)
                # Without it they stay, marked, until a mail program expunges them (RFC 4315).
                if self._client.has_capability("UIDPLUS"):
                    self._client.uid_expunge(uids)

    def full(self) -> str:
        """Return which quota has no room for another mail, or nothing (RFC 9208, 5).

        Raises:
            EndFault: the mailbox cannot be read.
        """
        with self._faults():
            if not self._client.has_capability("QUOTA"):
                return ""
            for quota in self._client.get_quota_root("INBOX")[1]:
                unit = 1024 if quota.resource.upper() == "STORAGE" else 1
                needed = MAIL_OCTETS if unit == 1024 else 1
                used, most = int(quota.usage), int(quota.limit)
                if used * unit + needed > most * unit:
                    return f"{quota.resource.lower()} {used:,} of {most:,}"
        return ""

    def _junk(self) -> str:
        return self._client.find_special_folder(JUNK) or ""

    def _find(self, token: str, folder: str, *, is_spam: bool) -> Iterator[FoundMail]:
        self._select(folder)
        uids = self._client.search(["SUBJECT", marks.word(token), "UNDELETED"])[-MOST_FOUND:]
        self._in_time()
        for uid, data in self._client.fetch(uids, ["INTERNALDATE", _HEADER]).items():
            octets = next((data[key] for key in data if key.startswith(b"BODY[")), b"")
            header = message_from_bytes(octets or b"")
            # Others' mails may have the word too, an answer has it.
            if header.get(marks.ROUTE, "").strip() == token:
                yield FoundMail(
                    uid,
                    header.get(marks.MARK, "").strip(),
                    folder,
                    is_spam,
                    data[b"INTERNALDATE"],
                    marks.hops(header.get_all("Received", [])),
                )

    def _select(self, folder: str) -> None:
        self._in_time()
        self._client.select_folder(folder)
        self._in_time()

    def _in_time(self) -> None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"it has taken more than {PATIENCE:.0f} s")
        self._client.socket().settimeout(min(TIMEOUT, left))

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except (IMAPClientError, OSError) as error:
            raise self._end.unreachable(error) from error


@contextmanager
def opened(end: MailEnd) -> Iterator[OpenMailbox]:
    """Log in to a mailbox, and leave it at the end.

    Raises:
        EndFault: it cannot be opened.
    """
    until = time.monotonic() + PATIENCE
    client = _connected(end)
    try:
        _log_in(end, client)
        yield OpenMailbox(end, client, until)
    finally:
        _leave(client)


def _connected(end: MailEnd) -> IMAPClient:
    context = end.context()
    client = None
    try:
        client = IMAPClient(
            end.host,
            end.port,
            ssl=end.security == LinkSecurity.TLS,
            ssl_context=context,
            timeout=TIMEOUT,
        )
        # Times with their zone, as the server gives them.
        client.normalise_times = False
        if end.security == LinkSecurity.STARTTLS:
            client.starttls(context)
    except ssl.SSLCertVerificationError as error:
        _leave(client)
        raise end.certificate_fault(error) from error
    except (IMAPClientError, OSError) as error:
        _leave(client)
        raise end.unreachable(error) from error
    return client


def _log_in(end: MailEnd, client: IMAPClient) -> None:
    login = end.login
    if login is None:
        raise EndFault(Fault.LOGIN, f"{end} needs an account: choose one.")
    try:
        if login.tokens is None:
            client.login(login.user, login.password)
        else:
            _log_in_by_token(login, client)
    except LoginError as error:
        # It also stands for a session that was lost on the way.
        lost = isinstance(error.__context__, IMAPClientAbortError)
        if lost or any(code in str(error) for code in _BUSY):
            raise end.unreachable(error) from error
        words = f"{end} refuses the login of {login.user}: {_said(error)}"
        raise EndFault(Fault.LOGIN, words) from error
    except (IMAPClientError, OSError) as error:
        raise end.unreachable(error) from error


def _log_in_by_token(login: MailLogin, client: IMAPClient) -> None:
    tokens: Any = login.tokens
    try:
        client.oauth2_login(login.user, token_of(tokens)["access_token"])
    except LoginError as error:
        if isinstance(error.__context__, IMAPClientAbortError):
            raise
        # One that was revoked meanwhile.
        client.oauth2_login(login.user, token_of(tokens, fresh=True)["access_token"])


def _said(error: LoginError) -> str:
    """Return a server's words: the library passes bytes on as their representation."""
    return _BYTES.sub(r"\2", str(error))[:300]


def _leave(client: IMAPClient | None) -> None:
    """Log out; a session that is lost has nothing more to say."""
    if client is None:
        return
    try:
        client.logout()
    except (IMAPClientError, OSError):
        with suppress(OSError):
            client.shutdown()
