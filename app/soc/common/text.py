"""Numbers and times as sentences have them."""

from datetime import datetime

from django.utils.timesince import timesince


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: "1 mail", "2 mails"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def age(moment: datetime, now: datetime) -> str:
    """Return how long ago a moment was: "90 s", "4 minutes"."""
    seconds = round((now - moment).total_seconds())
    return f"{seconds} s" if seconds < 120 else timesince(moment, now)
