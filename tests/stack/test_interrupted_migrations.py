"""A migrate that is killed is run again, and ends in the schema that it would have made at once."""

from __future__ import annotations

import json
import subprocess

import pytest

from harness import REPOSITORY, Stack

DATABASE = "interrupted"
SCHEMA = """
SELECT 'column', table_name, column_name, column_type, is_nullable, column_default, extra
  FROM information_schema.columns WHERE table_schema = DATABASE()
UNION SELECT 'index', table_name, index_name, non_unique, seq_in_index, column_name, ''
  FROM information_schema.statistics WHERE table_schema = DATABASE()
UNION SELECT 'key', table_name, constraint_name, referenced_table_name, delete_rule, '', ''
  FROM information_schema.referential_constraints WHERE constraint_schema = DATABASE()
UNION SELECT 'migration', app, name, '', '', '', '' FROM django_migrations
UNION SELECT 'schedule', name, task, '', '', '', '' FROM django_celery_beat_periodictask
  WHERE name NOT LIKE 'now: %'
UNION SELECT 'rule', application, name, '', '', '', '' FROM alerts_rule
ORDER BY 1, 2, 3, 4, 5, 6
"""


def as_root(stack: Stack, database: str, sql: str) -> str:
    script = "MYSQL_PWD=$(cat /run/site/root_password) mariadb --user=root --protocol=socket -N "
    return stack.compose("exec", "-T", "mariadb", "sh", "-c", script + database, stdin=sql)


def interrupt(stack: Stack, every: int) -> int:
    """Make a second database by a migrate that is killed again and again; count the kills."""
    grant = f"GRANT ALL ON {DATABASE}.* TO soc_migrate@'%'"
    as_root(stack, "", f"CREATE OR REPLACE DATABASE {DATABASE}; {grant};")
    script = (REPOSITORY / "tests" / "stack" / "interrupted.py").read_text(encoding="utf-8")
    printed = stack.compose(
        *("run", "--rm", "--no-deps", "-T", "--env", "DJANGO_SETTINGS_MODULE=soc.settings"),
        *("migrate", "python3", "-", DATABASE, str(every)),
        stdin=script,
        stderr=subprocess.PIPE,
    )
    return json.loads(printed.splitlines()[-1])


@pytest.mark.parametrize(
    ("every", "least"),
    [(100, 5), pytest.param(1, 1000, marks=pytest.mark.drill)],
    ids=["sample", "every statement"],
)
def test_a_migrate_that_is_killed_is_run_on(stack: Stack, every: int, least: int) -> None:
    kills = interrupt(stack, every)
    print(f"{kills} kills")
    assert kills >= least
    assert as_root(stack, DATABASE, SCHEMA) == as_root(stack, "soc", SCHEMA)
    assert as_root(stack, DATABASE, "SHOW TABLES LIKE 'soc_migration%'") == ""
    revoke = f"REVOKE ALL ON {DATABASE}.* FROM soc_migrate@'%'"
    as_root(stack, "", f"DROP DATABASE {DATABASE}; {revoke};")
