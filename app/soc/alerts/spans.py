"""Lengths of time in the few characters that a list has room for."""

from datetime import timedelta


def in_words(span: timedelta) -> str:
    """Return a length of time in its two largest units, such as ``3 h 05 min``."""
    seconds = max(0, round(span.total_seconds()))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if not minutes:
        return f"{seconds} s"
    if not hours:
        return f"{minutes} min"
    if not days:
        return f"{hours} h {minutes % 60:02} min"
    return f"{days} d {hours % 24} h"
