"""Prints the migrations that the database has and this version of the application does not know.

Runs inside a container of any version, from standard input: `make rollback` asks an older one.
"""

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "soc.settings")
django.setup()

from django.db import connection  # noqa: E402
from django.db.migrations.loader import MigrationLoader  # noqa: E402

loader = MigrationLoader(connection)
print(
    *sorted(".".join(key) for key in loader.applied_migrations.keys() - loader.disk_migrations),
    sep=", ",
)
