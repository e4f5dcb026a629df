"""What applications add to the matrix of mail between domains, in their modules ``pairs``.

A module has ``pairs``, which yields them, and ``PERMISSION``: who has it sees them.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ActivePair:
    """Mail from one domain to another as a round trip of the site's own found it."""

    sender: str
    recipient: str
    name: str
    tone: str
    label: str
    seconds: float | None
    """How long its last mail took, if that has arrived."""
    link: str
