"""SMTP sessions that end in time (RFC 5321, 4.5.3.2 leaves a client minutes for each reply)."""

import smtplib
import time
from typing import Any

TIMEOUT = 15.0
"""Seconds that a server may take over connecting, or over one reply."""


class BoundedSMTP(smtplib.SMTP):
    """A session whose replies must come within one time in all, not only each in its own.

    ``end`` is on the monotonic clock, in seconds.
    """

    def __init__(self, end: float, **options: Any) -> None:
        self.end = end
        self.refusals = 0
        super().__init__(**options)

    def getreply(self) -> tuple[int, bytes]:
        """Wait for a reply as long as there is time left (smtplib's own name)."""
        if self.sock:
            self.sock.settimeout(max(0.1, min(TIMEOUT, self.end - time.monotonic())))
        return super().getreply()


class BoundedSMTPS(BoundedSMTP, smtplib.SMTP_SSL):
    """The same over TLS from the first byte."""
