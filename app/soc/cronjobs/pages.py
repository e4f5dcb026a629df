"""What the page of jobs shows."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from soc.alerts.lists import TONES
from soc.alerts.spans import in_words
from soc.core.severity import Severity
from soc.cronjobs.models import CronJob


@dataclass(frozen=True)
class JobRow:
    """One job as the list shows it."""

    job: CronJob
    now: datetime

    @property
    def state(self) -> str:
        """How it is, in a word or two."""
        if not self.job.enabled:
            return "disabled"
        if self.job.expected_by <= self.now:
            return "missing"
        if self.job.failed:
            return "failed"
        if self.job.last_ping_at is None:
            return "new"
        late = self.job.expected_by - timedelta(minutes=self.job.grace) <= self.now
        return "within its grace" if late else "ran"

    @property
    def tone(self) -> str:
        """How it looks."""
        if self.state in ("missing", "failed"):
            return TONES[Severity(self.job.severity)]
        return {"ran": "ok", "within its grace": "warn"}.get(self.state, "idle")

    @property
    def period(self) -> str:
        """The time from one run to the next, in words."""
        return in_words(timedelta(minutes=self.job.period))

    @property
    def grace(self) -> str:
        """How much later it may be, in words."""
        return in_words(timedelta(minutes=self.job.grace))

    @property
    def weight(self) -> tuple[bool, bool, int, datetime]:
        """What the list is sorted by: the worst first, then what is due soonest."""
        bad = self.state in ("missing", "failed")
        return not self.job.enabled, not bad, -self.job.severity * bad, self.job.expected_by


def rows(jobs: Iterable[CronJob], now: datetime) -> list[JobRow]:
    """Return the rows of jobs, the worst first."""
    return sorted((JobRow(job, now) for job in jobs), key=lambda row: row.weight)
