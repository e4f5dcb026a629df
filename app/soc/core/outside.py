"""The dead-man's ping: a monitor outside notices when it stops, whatever has stopped here.

A task sends it, so that it proves that beat, the broker, a worker and the database work. Nothing
here could report that these are down: mail needs all of them.
"""

import logging
import urllib.request

from django.conf import settings

from soc.core import readiness, storage
from soc.core.severity import Severity

TIMEOUT = 10
"""Seconds that the monitor may take."""

logger = logging.getLogger(__name__)


def ping() -> bool:
    """Ask for the monitor's address if all is well; return whether it was reached."""
    if not settings.PING_URL:
        return False
    why = readiness.problem()
    if not why and storage.free().severity == Severity.CRITICAL:
        why = storage.free().text
    if why:
        logger.error("The monitor outside is not pinged: %s", why)
        return False
    try:
        # The environment's check lets only https through.
        with urllib.request.urlopen(settings.PING_URL, timeout=TIMEOUT):  # noqa: S310
            return True
    except OSError as error:
        logger.warning("The monitor outside cannot be pinged: %s", error)
        return False
