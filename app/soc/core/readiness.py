"""Whether this process can do its work: the database answers and is up to date."""

import logging
from functools import cache

from django.contrib.auth.decorators import login_not_required
from django.db import Error, connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache

logger = logging.getLogger(__name__)


@cache
def _needed() -> frozenset[tuple[str, str]]:
    """Return the migrations of this code, by application and name."""
    return frozenset(MigrationLoader(None).disk_migrations)


def problem() -> str:
    """Return why this process is not ready, or nothing; the log tells more."""
    try:
        missing = _needed() - MigrationRecorder(connection).applied_migrations().keys()
    except Error as error:
        logger.warning("Not ready: %s", error)
        return "the database does not answer"
    if missing:
        logger.warning("Not ready: %d migrations, such as %s.%s", len(missing), *min(missing))
        return "the database is not up to date"
    return ""


@never_cache
@login_not_required
def readyz(request: HttpRequest) -> HttpResponse:
    """Answer 200 if this process is ready, or 503 and in a few words why it is not."""
    why = problem()
    text = f"not ready: {why}\n" if why else "ready\n"
    return HttpResponse(text, status=503 if why else 200, content_type="text/plain")
