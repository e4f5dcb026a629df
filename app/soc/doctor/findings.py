"""What is wrong, how bad it is, and what to do about it."""

from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    """How bad a finding is; the numbers are the exit status (Monitoring Plugins guidelines)."""

    OK = 0
    WARNING = 1
    CRITICAL = 2


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong; of two that are as bad, the cause comes before what follows."""

    level: Level
    area: str
    text: str
    todo: str
    follows: bool = False
    """Whether it is what a cause looks like, which other findings may name."""


def critical(area: str, text: str, todo: str, *, follows: bool = False) -> Finding:
    """Return a finding that keeps the site from its work."""
    return Finding(Level.CRITICAL, area, text, todo, follows)


def warning(area: str, text: str, todo: str, *, follows: bool = False) -> Finding:
    """Return a finding that will, or that takes a part of it."""
    return Finding(Level.WARNING, area, text, todo, follows)


def ordered(findings: list[Finding]) -> list[Finding]:
    """Return the worst first, causes before what follows from them, in the order of the checks."""
    return sorted(findings, key=lambda finding: (-finding.level, finding.follows))
