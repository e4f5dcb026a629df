"""Names of `soc.schedules.schedules` that landed migrations import from here."""

from soc.schedules.schedules import (  # noqa: F401 # for landed migrations only
    LATEST_BEAT_MIGRATION,
    Cron,
    Every,
    Schedule,
    create,
)
