"""What each service may do in the database, table by table.

Nobody but ``migrate`` may change the schema. A worker works on what is watched and mailed, but
not on who may sign in: anyone who has stolen its identity cannot make himself an administrator.
"""

from collections import defaultdict

from django.db import Error, connection
from django.db.backends.utils import CursorWrapper

from soc.provision.identity import database_user
from soc.provision.site import APP_SERVICES, SAMPLER

ROWS = ("SELECT", "INSERT", "UPDATE", "DELETE")
BEAT = ("soc_beat_", "django_celery_beat_", "core_heartbeat")
"""The tables that beat works on; it reads no other."""

PEOPLE = ("auth_", "django_content_type", "django_migrations")
"""Read by workers, which write of whom an alert is; written by web only."""

ACCESS = ("access_", "auditlog_", "axes_", "core_apitoken", "django_admin_log", "django_session")
"""Sessions, tokens and the records of who came and what he changed: web only."""

_NO_SUCH_GRANT = 1147
_ADMINISTRATORS = ("migrate", "web")


def apply() -> None:
    """Grant every service what it needs on each table, and revoke the rest.

    SQLite knows no users.
    """
    if connection.vendor != "mysql":
        return
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            groups = defaultdict(list)
            for service in APP_SERVICES:
                if service != "migrate":
                    groups[privileges(service, table)].append(f"'{database_user(service)}'@'%'")
            for granted, users in groups.items():
                _settle(cursor, table, granted, users)


def privileges(service: str, table: str) -> tuple[str, ...]:
    """Return what a service may do with the rows of a table."""
    if service == "beat":
        return ROWS if table.startswith(BEAT) else ()
    if service in _ADMINISTRATORS:
        return ROWS if table != "django_migrations" else ("SELECT",)
    if table.startswith(ACCESS):
        # Its housekeeping deletes what is older than its retention period.
        return ("SELECT", "DELETE") if service == SAMPLER else ()
    return ("SELECT",) if table.startswith(PEOPLE) else ROWS


def _settle(cursor: CursorWrapper, table: str, granted: tuple[str, ...], users: list[str]) -> None:
    if granted:
        cursor.execute(f"GRANT {', '.join(granted)} ON `{table}` TO {', '.join(users)}")
    refused = [privilege for privilege in ROWS if privilege not in granted]
    for user in users if refused else ():
        try:
            cursor.execute(f"REVOKE {', '.join(refused)} ON `{table}` FROM {user}")
        except Error as error:
            if error.args[0] != _NO_SUCH_GRANT:
                raise
