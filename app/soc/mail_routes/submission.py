"""Hands one mail to a submission server, phase by phase (RFC 6409)."""

import smtplib
import socket
import ssl
import time
from email.message import EmailMessage
from typing import Any

from soc.mail_routes.ends import (
    EndFault,
    Fault,
    LinkSecurity,
    MailEnd,
    RoutePhase,
    Stopwatch,
    token_of,
)
from soc.notify.bounded import TIMEOUT, BoundedSMTP

PATIENCE = 25.0
"""Seconds that a whole submission may take."""

_FULL = ("5.2.2", "4.2.2")
"""Mailbox full (RFC 3463, X.2.2)."""


class _TimedSMTP(BoundedSMTP):
    """A session that books the time of connecting and of TLS apart."""

    def __init__(self, end: MailEnd, watch: Stopwatch, context: ssl.SSLContext | None) -> None:
        self._watch, self._context_of_tls = watch, context
        super().__init__(time.monotonic() + PATIENCE, host=end.host, port=end.port, timeout=TIMEOUT)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        """Connect (smtplib's own name, which SMTP_SSL overrides in the same way)."""
        made: socket.socket = super()._get_socket(host, port, timeout)  # type: ignore[misc]
        self._watch.lap(RoutePhase.CONNECT)
        if self._context_of_tls is not None:
            try:
                made = self._context_of_tls.wrap_socket(made, server_hostname=host)
            except OSError:
                made.close()
                raise
            self._watch.lap(RoutePhase.TLS)
        return made


def submit(end: MailEnd, mail: EmailMessage, watch: Stopwatch) -> None:
    """Submit a mail, and book the phases.

    Raises:
        EndFault: it was not taken, as far as is known.
    """
    try:
        with _session(end, watch) as session:
            session.send_message(mail)
            watch.lap(RoutePhase.SUBMIT)
    except ssl.SSLCertVerificationError as error:
        raise end.certificate_fault(error) from error
    except smtplib.SMTPRecipientsRefused as error:
        raise _refusal(end, *next(iter(error.recipients.values()))) from error
    except smtplib.SMTPResponseException as error:
        raise _refusal(end, error.smtp_code, error.smtp_error) from error
    except (smtplib.SMTPException, OSError) as error:
        raise end.unreachable(error) from error


def _session(end: MailEnd, watch: Stopwatch) -> smtplib.SMTP:
    context = None if end.security == LinkSecurity.NONE else end.context()
    session = _TimedSMTP(end, watch, context if end.security == LinkSecurity.TLS else None)
    try:
        # The greeting, which a server may hold back.
        watch.lap(RoutePhase.CONNECT)
        if end.security == LinkSecurity.STARTTLS:
            session.starttls(context=context)
            watch.lap(RoutePhase.TLS)
        if end.login:
            _log_in(end, session)
            watch.lap(RoutePhase.LOGIN)
        session.ehlo_or_helo_if_needed()
    except BaseException:
        session.close()
        raise
    return session


def _log_in(end: MailEnd, session: smtplib.SMTP) -> None:
    login: Any = end.login
    try:
        if login.tokens is None:
            session.login(login.user, login.password)
        else:
            _log_in_by_token(login, session)
    except smtplib.SMTPAuthenticationError as error:
        # 454: the server cannot judge at the moment (RFC 4954, 4).
        if 400 <= error.smtp_code < 500:
            raise end.unreachable(error) from error
        words = _text(error.smtp_code, error.smtp_error)
        raise EndFault(Fault.LOGIN, f"{end} refuses the login of {login.user}: {words}") from error


def _log_in_by_token(login: Any, session: smtplib.SMTP) -> None:
    from soc.notify import xoauth2

    session.ehlo_or_helo_if_needed()
    try:
        xoauth2.authenticate(session, login.user, token_of(login.tokens))
    except smtplib.SMTPAuthenticationError:
        # One that was revoked meanwhile.
        xoauth2.authenticate(session, login.user, token_of(login.tokens, fresh=True))


def _refusal(end: MailEnd, code: int, reply: bytes | str) -> EndFault:
    words = _text(code, reply)
    if any(status in words for status in _FULL):
        return EndFault(Fault.FULL, f"{end} says that the mailbox is full: {words}")
    if 400 <= code < 500:
        return EndFault(Fault.DEFERRED, f"{end} does not take the mail for now: {words}")
    return EndFault(Fault.REFUSED, f"{end} refuses the mail: {words}")


def _text(code: int, reply: bytes | str) -> str:
    text = reply.decode(errors="replace") if isinstance(reply, bytes) else reply
    return f"{code} {' '.join(text.split())}"[:300]
