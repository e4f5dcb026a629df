"""Space and inodes of the storage that the site's volumes lie on.

A container's root file system lies on the engine's storage, and so do its volumes unless they were
put elsewhere; what a container sees there is the host's own figure. The embedded stack looks at
its state's.
"""

import os
from dataclasses import dataclass

from django.conf import settings

from soc.core.severity import Severity

WARNING = 0.15
CRITICAL = 0.05
"""Shares that are free. MariaDB aborts when it cannot write, RabbitMQ stops taking messages."""


@dataclass(frozen=True)
class Free:
    """The shares of space and of inodes that are free, from 0 to 1."""

    space: float
    inodes: float

    @property
    def severity(self) -> Severity:
        """How bad the scarcer of the two is."""
        least = min(self.space, self.inodes)
        if least < CRITICAL:
            return Severity.CRITICAL
        return Severity.WARNING if least < WARNING else Severity.OK

    @property
    def text(self) -> str:
        """What is short and what to do, in a sentence; nothing if nothing is."""
        if self.severity == Severity.OK:
            return ""
        what, share = min((("space", self.space), ("inodes", self.inodes)), key=lambda one: one[1])
        return (
            f"The storage of the volumes has {share:.0%} of its {what} free: delete or move "
            f"something on the host before the database stops."
        )


def free() -> Free:
    """Return what is free where the site's data lies."""
    seen = os.statvfs(settings.STATE if settings.EMBEDDED else "/")
    # A file system without a fixed number of inodes, such as btrfs, reports 0 of 0.
    inodes = seen.f_favail / seen.f_files if seen.f_files else 1.0
    return Free(space=seen.f_bavail / seen.f_blocks, inodes=inodes)
