"""The lease and the run data on the stack's MariaDB, as beat's own user."""

from __future__ import annotations

import pytest

from harness import Stack

PRELUDE = """
from datetime import timedelta
from django.db import connection, transaction
from django.utils import timezone
from django_celery_beat.models import IntervalSchedule, PeriodicTask
from soc.beat.database import Record, connect
from soc.beat.models import Lease
from soc.beat.options import Options
from soc.beat.rows import Reader
from soc.beat.timing import moment

database = connect(2)
answer = {}

def work():
    minute = IntervalSchedule.objects.create(every=60, period="seconds")
    rows = [
        PeriodicTask.objects.create(name=f"of a test {n}", task="t", interval=minute)
        for n in range(3)
    ]
    keys = [row.pk for row in rows]
    changed = [row.date_changed for row in rows]
    Lease.objects.update(owner="one", epoch=5, expires_at=timezone.now() - timedelta(seconds=9))
    due = moment(timezone.now())
"""
EPILOGUE = """
with transaction.atomic():
    work()
    # The site's own beat must not see a row of this, nor lose its lease.
    transaction.set_rollback(True)
"""


def inside(stack: Stack, code: str) -> dict[str, object]:
    """Run code as beat's user in a transaction that is undone; return its ``answer``."""
    lines = "".join(f"    {line}\n" for line in code.strip().splitlines())
    return stack.data(PRELUDE + lines + EPILOGUE)


def test_one_statement_renews_and_records_or_does_nothing(stack: Stack) -> None:
    answer = inside(
        stack,
        """
records = [Record(keys[0], due, 2), Record(keys[1], due, 1, False)]
answer["stranger"] = database.record("two", 5, 6, due, records)
answer["old epoch"] = database.record("one", 4, 6, due, records)
answer["untouched"] = PeriodicTask.objects.filter(pk__in=keys, last_run_at=None).count()
answer["ours"] = database.record("one", 5, 6, due, records)
answer["empty"] = database.record("one", 5, 6, due, [])
rows = list(PeriodicTask.objects.filter(pk__in=keys).order_by("pk"))
answer["counts"] = [row.total_run_count for row in rows]
answer["enabled"] = [row.enabled for row in rows]
answer["exact"] = [row.last_run_at and moment(row.last_run_at) == due for row in rows]
answer["same"] = [row.date_changed for row in rows] == changed
lease = Lease.objects.get()
answer["lease"] = 3 < (lease.expires_at - timezone.now()).total_seconds() < 7
answer["until"] = moment(lease.recorded_until) == due
""",
    )
    assert answer == {
        "stranger": False, "old epoch": False, "untouched": 3, "ours": True, "empty": True,
        "counts": [2, 0, 0], "enabled": [True, False, True], "exact": [True, True, None],
        "same": True, "lease": True, "until": True,
    }  # fmt: skip


@pytest.mark.parametrize(("age", "taken"), [(9, True), (-9, False)])
def test_a_lease_is_taken_when_its_time_is_up(stack: Stack, age: int, taken: bool) -> None:
    answer = inside(
        stack,
        f"""
Lease.objects.update(expires_at=timezone.now() - timedelta(seconds={age}))
database.take_lease("two", 6)
answer["owner"], answer["epoch"] = database.holder().owner, database.holder().epoch
""",
    )
    assert answer == ({"owner": "two", "epoch": 6} if taken else {"owner": "one", "epoch": 5})


def test_an_edit_is_found_and_only_its_neighbours_are_read(stack: Stack) -> None:
    answer = inside(
        stack,
        """
reader = Reader(database)
known = {entry.key: entry for entry in reader.all().entries}
answer["quiet"] = [len(reader.changed(known).entries), len(reader.changed(known).removed)]
PeriodicTask.objects.filter(pk=keys[0]).update(queue="email")
PeriodicTask.objects.filter(pk=keys[1]).update(enabled=False)
changes = reader.changed(known)
answer["changed"] = [entry.key for entry in changes.entries] == keys[:1]
answer["removed"] = changes.removed == [keys[1]]
database.record("one", 5, 6, due, [Record(keys[0], due, 1)])
known[keys[0]] = changes.entries[0]
del known[keys[1]]
answer["own records"] = len(reader.changed(known).entries)
""",
    )
    assert answer == {"quiet": [0, 0], "changed": True, "removed": True, "own records": 0}
