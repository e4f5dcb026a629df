"""What is wrong with the way to the relay is told apart, with what to do."""

from __future__ import annotations

import smtplib
import socket
import ssl
from typing import Any

import pytest

from soc.notify import relay_check, smtp


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (smtplib.SMTPAuthenticationError(535, b"no"), "refuses the login of"),
        (smtplib.SMTPNotSupportedError("STARTTLS"), "does not offer"),
        (smtplib.SMTPHeloError(550, b"no"), "answers, but cannot be used"),
        (ssl.SSLError(1, "bad"), "no TLS with"),
        (FileNotFoundError(2, "no", "smtp_password"), "smtp_password is missing"),
        (socket.gaierror(-2, "unknown"), "no DNS knows"),
        (TimeoutError("timed out"), "cannot be reached"),
    ],
)
def test_each_failure_has_its_words(
    monkeypatch: pytest.MonkeyPatch, error: Exception, expected: str
) -> None:
    def fail(_: float) -> Any:
        raise error

    monkeypatch.setattr(smtp, "connect", fail)
    text, todo = relay_check.problem()
    assert expected in text
    assert todo
