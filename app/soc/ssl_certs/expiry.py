"""How near the end of a certificate is."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


class Nearness(StrEnum):
    """The steps on the way to the end, as the endpoints' statuses are named."""

    FAR = "ok"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


@dataclass(frozen=True)
class ExpiryLimit:
    """A distance from the end: this many days, or a share of the lifetime if that is less."""

    days: int
    share: int
    """Percent of the lifetime."""

    def of(self, lifetime: timedelta | None) -> timedelta:
        """Return the distance for a certificate of such a lifetime; unknown, the days count."""
        days = timedelta(days=self.days)
        return days if lifetime is None else min(days, lifetime * self.share / 100)


@dataclass(frozen=True)
class ExpiryLimits:
    """The distances at which the steps begin."""

    critical: ExpiryLimit = ExpiryLimit(2, 5)
    error: ExpiryLimit = ExpiryLimit(7, 10)
    warning: ExpiryLimit = ExpiryLimit(30, 33)

    def nearness(self, not_before: datetime | None, not_after: datetime, now: datetime) -> Nearness:
        """Return how near the end is."""
        left = not_after - now
        lifetime = not_after - not_before if not_before else None
        for limit, step in (
            (self.critical, Nearness.CRITICAL),
            (self.error, Nearness.ERROR),
            (self.warning, Nearness.WARNING),
        ):
            if left <= limit.of(lifetime):
                return step
        return Nearness.FAR


DEFAULT = ExpiryLimits()
"""What new policies begin with, and what holds as long as no policy is the default one."""
