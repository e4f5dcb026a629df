"""Whether this process can do its work: it is asked of what the work needs, not only of a socket.

The database answers, is up to date, lets every table be read and takes a row.
"""

import logging
import time
from functools import cache, lru_cache

from django.apps import apps
from django.contrib.auth.decorators import login_not_required
from django.db import Error, connection, transaction
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache

from soc.core import storage
from soc.core.models import Heartbeat

REMEMBERED = 5
"""Seconds for which an answer stands."""

logger = logging.getLogger(__name__)


@cache
def _needed() -> frozenset[tuple[str, str]]:
    """Return the migrations of this code, by application and name."""
    return frozenset(MigrationLoader(None).disk_migrations)


def problem() -> str:
    """Return why this process is not ready, or nothing; the log says more."""
    shortage = storage.free()
    if why := _problem_of_database():
        return f"{why}: {shortage.text}" if shortage.text else why
    return ""


def _problem_of_database() -> str:
    try:
        missing = _needed() - MigrationRecorder(connection).applied_migrations().keys()
    except Error as error:
        logger.warning("Not ready: %s", error)
        return "the database does not answer"
    if missing:
        logger.warning("Not ready: %d migrations, such as %s.%s", len(missing), *min(missing))
        return "the database is not up to date"
    return _unreadable() or _unwritable()


def _unreadable() -> str:
    """Read a row of each table: MariaDB opens a damaged one only when it is asked for."""
    for model in apps.get_models():
        if not model._meta.managed or model._meta.proxy:
            continue
        try:
            model._base_manager.order_by().values_list("pk").first()
        except Error as error:
            logger.warning("Not ready: %s: %s", model._meta.db_table, error)
            return "a table of the database cannot be read"
    return ""


def _unwritable() -> str:
    """Write a row and take it back."""
    try:
        with transaction.atomic():
            Heartbeat.objects.create(service="readyz", instance="", seen_at=timezone.now())
            transaction.set_rollback(True)
    except Error as error:
        logger.warning("Not ready: %s", error)
        return "the database takes no rows"
    return ""


def _moment() -> int:
    return int(time.monotonic() // REMEMBERED)


@lru_cache(maxsize=1)
def _recent_problem(_: int) -> str:
    """Return the problem; asked often, and anybody may ask, it costs the database no more."""
    return problem()


@never_cache
@login_not_required
def readyz(request: HttpRequest) -> HttpResponse:
    """Answer 200 if this process is ready, or 503 and in a few words why it is not."""
    why = _recent_problem(_moment())
    text = f"not ready: {why}\n" if why else "ready\n"
    return HttpResponse(text, status=503 if why else 200, content_type="text/plain")
