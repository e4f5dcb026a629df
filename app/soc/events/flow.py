"""How the stream flows: what time it has reached, and since when without a break.

Anyone who asks how long a robot has been silent asks by the stream's time, not by the clock: while
nothing arrives, or an old backlog does, nobody's silence grows.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from django.db.models import F, Max
from django.urls import reverse

from soc.alerts.conditions import Condition
from soc.alerts.spans import in_words
from soc.core.severity import Severity
from soc.events.models import BotSeen, IngestCount, StreamSettings

APPLICATION = "events"
RULE = "stream"
SUBJECT = "event stream"

MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class Flow:
    """The stream at the moment ``now``.

    ``at`` is the time of the newest fresh event of anybody, None before the first one; ``since``
    is when the fresh events that still come began to come without a break of ``patience``.
    """

    now: datetime
    at: datetime | None
    since: datetime | None
    patience: timedelta

    @property
    def is_silent(self) -> bool:
        """Whether no fresh event has come for too long to say anything of anybody."""
        return self.at is None or self.now - self.at > self.patience

    def silence(self, heard: datetime) -> timedelta:
        """Return how long somebody has been silent while others could be heard."""
        if self.at is None or self.since is None:
            return timedelta()
        return max(timedelta(), self.at - max(heard, self.since))

    def of_arrival(self, arrived: datetime) -> datetime:
        """Return what time the stream says it was when something arrived.

        It is as late now as it was then, unless it catches up.
        """
        return arrived if self.at is None else arrived - (self.now - self.at)

    def together(self, heard: datetime, others: datetime, limit: timedelta) -> datetime:
        """Return when somebody fell silent: with ``others`` if it was within ``patience``.

        So what explains a silence is reported first, and not a minute after what it explains.
        Silence that is a problem already, from ``limit`` on, is nobody else's.
        """
        return others if others - heard < min(self.patience, limit) else heard


def forget_the_future(now: datetime) -> None:
    """Let robots be heard now that were heard while the clock was ahead.

    Else nobody would be silent until that time has come.
    """
    for name in ("at", "arrived_at"):
        BotSeen.objects.filter(**{f"{name}__gt": now + MINUTE}).update(**{name: now})


def read(now: datetime, reach: timedelta) -> Flow:
    """Return how the stream flows; breaks are looked for so far back."""
    patience = timedelta(minutes=StreamSettings.current().silent_minutes)
    counted = IngestCount.objects.filter(
        minute__gt=now - reach - patience - MINUTE,
        minute__lte=now,
        stale__lt=F("stored") + F("duplicates"),
    )
    minutes = counted.order_by("minute").values_list("minute", flat=True).distinct()
    newest = BotSeen.objects.aggregate(at=Max("at"))["at"]
    return Flow(now, newest, begin(list(minutes), patience), patience)


def begin(minutes: list[datetime], patience: timedelta) -> datetime | None:
    """Return the minute since which no two have been further apart than ``patience``."""
    breaks = [later for earlier, later in pairwise(minutes) if later - earlier - MINUTE > patience]
    return max(breaks, default=min(minutes, default=None))


def condition(flow: Flow) -> list[Condition]:
    """Return how the stream is; nothing before its first event, since nobody may send any."""
    if flow.at is None:
        return []
    age = in_words(flow.now - flow.at)
    return [
        Condition(
            application=APPLICATION,
            rule=RULE,
            subject=SUBJECT,
            severity=Severity.CRITICAL if flow.is_silent else Severity.OK,
            observed_at=flow.now,
            summary=f"The newest event of any robot is {age} old: no robot is called silent "
            "meanwhile.",
            link=reverse("robots"),
        )
    ]
