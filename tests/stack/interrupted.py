"""Kills migrate after every statement that writes, and runs it on until it succeeds.

usage: interrupted.py DATABASE EVERY; prints the number of kills as JSON. It runs in the stack's
`migrate` container; EVERY=1 kills after each statement, EVERY=50 after one of fifty.
"""

import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any
from zlib import crc32

import django
from django.conf import settings

DATABASE, EVERY = sys.argv[1], int(sys.argv[2])
settings.DATABASES["default"]["NAME"] = DATABASE
django.setup()

from django.apps import apps  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402
from django.db.migrations.loader import MigrationLoader  # noqa: E402

from soc.core.resumable import TABLE  # noqa: E402

SEEN = Path("/tmp/killed-at")
WRITES = ("ALTER", "CREATE", "DELETE", "DROP", "INSERT", "RENAME", "REPLACE", "UPDATE")


def kill_once(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
    """Run a statement; then end this process at once, if it did not here before."""
    result = execute(sql, params, many, context)
    point = f"{sql} {params}"
    if TABLE not in sql:
        # Times and generated keys differ from run to run.
        point = re.sub(r"\d+", "", point)
    if sql.lstrip().startswith(WRITES) and crc32(point.encode()) % EVERY == 0:
        mark = f"{crc32(point.encode())}\n"
        if mark not in SEEN.read_text():
            with SEEN.open("a") as seen:
                seen.write(mark)
            os.kill(os.getpid(), signal.SIGKILL)
    return result


def migrate() -> int:
    """Migrate in a process of its own; return how it ended."""
    if child := os.fork():
        return os.waitpid(child, 0)[1]
    try:
        with connection.execute_wrapper(kill_once):
            call_command("migrate", interactive=False, verbosity=0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)


SEEN.write_text("")
assert apps.ready
assert MigrationLoader(None).disk_migrations
kills = 0
while status := migrate():
    if status != signal.SIGKILL:
        sys.exit(f"after {kills} kills migrate failed")
    kills += 1
print(json.dumps(kills))
