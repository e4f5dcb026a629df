"""The scheduler's settings: one dictionary, ``BEAT``, in Django's settings."""

from dataclasses import dataclass, fields
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured


@dataclass(frozen=True)
class Options:
    """Times are in seconds; ``docs/beat.md`` says what each is for."""

    LEASE: float = 6.0
    RENEW: float = 2.0
    POLL: float = 0.85
    TIMEOUT: float = 2.0
    PREBUILT: bool | None = None
    HISTORY_DAYS: int = 2


def read() -> Options:
    """Return the project's options.

    Raises:
        ImproperlyConfigured: an unknown name, or times that cannot work together.
    """
    given: dict[str, Any] = getattr(settings, "BEAT", {})
    unknown = given.keys() - {option.name for option in fields(Options)}
    if unknown:
        raise ImproperlyConfigured(f"BEAT has unknown options: {', '.join(sorted(unknown))}")
    options = Options(**given)
    if not settings.USE_TZ:
        raise ImproperlyConfigured("soc.beat needs USE_TZ = True")
    if options.LEASE < options.RENEW + 2 * options.TIMEOUT:
        raise ImproperlyConfigured(
            "BEAT: LEASE must be RENEW + 2 * TIMEOUT at least, or one lost packet costs the lease"
        )
    return options
