"""The pace of the site's mail, as a token bucket."""

from dataclasses import dataclass

BURST = 10
"""Seconds' worth of mails that may go out at once after a pause."""


@dataclass(frozen=True)
class Pace:
    """How many mails may go out, as a bucket of tokens that fills with time."""

    per_minute: int

    @property
    def size(self) -> float:
        """How many tokens the bucket holds at most."""
        return max(1.0, self.per_minute * BURST / 60)

    def filled(self, tokens: float, seconds: float) -> float:
        """Return the tokens after this many seconds."""
        return min(self.size, tokens + max(0.0, seconds) * self.per_minute / 60)

    def wait(self, tokens: float) -> float:
        """Return the seconds until the bucket holds a whole token."""
        return max(0.0, (1 - tokens) * 60 / self.per_minute)
