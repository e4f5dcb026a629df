"""Things that happen every few seconds."""


class Timer:
    """Tells when something is due again; ``now`` is a monotonic clock's time in seconds."""

    def __init__(self, every: float) -> None:
        self.every = every
        self.at = float("-inf")

    def is_due(self, now: float) -> bool:
        """Return whether it is due; if so, the next time is counted from now."""
        if now < self.at:
            return False
        self.at = now + self.every
        return True

    def pull(self) -> None:
        """Make it due at once."""
        self.at = float("-inf")


class Backoff:
    """Doubles the wait after each failure, between two limits in seconds."""

    def __init__(self, first: float, last: float) -> None:
        self._first = first
        self._last = last
        self._wait = first
        self.at = float("-inf")

    def failed(self, now: float) -> None:
        """Wait before the next try, twice as long as the last time."""
        self.at = now + self._wait
        self._wait = min(2 * self._wait, self._last)

    def worked(self) -> None:
        """Start over."""
        self._wait = self._first
        self.at = float("-inf")
