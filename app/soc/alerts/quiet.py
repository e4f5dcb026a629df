"""Suppression: silences, maintenance windows, and a failing parent."""

from datetime import datetime
from functools import cached_property

from django.db.models import Q

from soc.alerts.conditions import Condition
from soc.alerts.models import OPEN, Alert, Silence, Subject


class Quiet:
    """The silences at one moment, read once and only if anybody asks."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self._parents: dict[str, str] = {}

    @cached_property
    def _silences(self) -> list[Silence]:
        begun = Silence.objects.filter(Q(ends_at__gt=self.now) | ~Q(recurrence=""))
        return [silence for silence in begun if silence.is_active(self.now)]

    @property
    def any_silence(self) -> bool:
        """Whether there is a silence at all."""
        return bool(self._silences)

    def over(self, subject: Subject) -> str:
        """Return why a subject is to be quiet as it is known, or nothing."""
        return self._why(subject, subject.site, subject.parent)

    def over_report(self, subject: Subject, condition: Condition) -> str:
        """Return why a subject is to be quiet as it is now reported, or nothing."""
        return self._why(subject, condition.site, condition.parent_fingerprint)

    def _why(self, subject: Subject, site: str, parent: str) -> str:
        for silence in self._silences:
            if silence.matches(subject.rule, subject.name, site):
                return str(silence)[:200]
        return self._parent(parent) if parent else ""

    def _parent(self, fingerprint: str) -> str:
        if fingerprint not in self._parents:
            alerts = Alert.objects.filter(OPEN, open_key=fingerprint)
            failing = alerts.exclude(state=Alert.State.PENDING)
            parent = failing.select_related("subject", "rule").first()
            self._parents[fingerprint] = f"{parent} is failing"[:200] if parent else ""
        return self._parents[fingerprint]
