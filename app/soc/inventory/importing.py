"""Imports of lists: compared first, then written in one transaction, or a person is asked.

What a source has no more is marked as missing, and shown. Nothing is deleted or disabled: that is
left to a person.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from django.db import connection, models, transaction
from django.db.models import Q
from django.utils import timezone

from soc.common import due
from soc.inventory import conditions, reading
from soc.inventory.models import InventoryObject, InventoryRun, InventorySource
from soc.inventory.reading import Row, SourceProblem
from soc.inventory.targets import InventoryLine, compare

MOST_LINES = 500
"""Lines that a run keeps."""

MOST_CHANGED = 500
"""Changes that a run writes, one by one; the next run follows at once with the rest."""

BATCH = 500

Mode = InventorySource.Mode
Outcome = InventoryRun.Outcome


def run_due() -> int:
    """Run the source that has waited longest, if one is due; return the mails that makes."""
    now = timezone.now()
    due.recall(InventorySource.objects.all(), "next_run_at", due.minutes("interval_minutes"), now)
    can_skip = connection.features.has_select_for_update_skip_locked
    with transaction.atomic():
        waiting = InventorySource.objects.select_for_update(skip_locked=can_skip)
        ready = waiting.filter(Q(enabled=True) | ~Q(requested=""), next_run_at__lte=now)
        source = ready.order_by("next_run_at").first()
        if source is None:
            return 0
        mode = Mode(source.requested or Mode.IMPORT)
        source.requested, source.next_run_at = "", source.slot_after(now)
        source.save(update_fields=["requested", "next_run_at"])
    return run(source, mode, now)


def ask(source: InventorySource, mode: Mode) -> None:
    """Have a source run within half a minute."""
    now = timezone.now()
    InventorySource.objects.filter(pk=source.pk).update(requested=mode, next_run_at=now)


def run(source: InventorySource, mode: Mode, now: datetime) -> int:
    """Read a source and do what the mode allows; return the mails that makes."""
    done = InventoryRun(source=source, at=now, mode=mode)
    try:
        rows = reading.fetch(source)
    except SourceProblem as problem:
        done.outcome, done.detail = Outcome.FAILED, str(problem)
    else:
        carry_out(done, rows)
    done.save()
    return conditions.report(done) if source.enabled and mode != Mode.DRY else 0


def carry_out(done: InventoryRun, rows: Sequence[Row]) -> None:
    """Compare rows with what is there, write what the run's mode allows, and note it in the run.

    With fewer objects than the source may lack, nothing at all is written before a person accepts.
    """
    source = done.source
    with transaction.atomic():
        lines = compare(source.kind, rows)
        known = {one.key: one for one in source.objects_of.all()}
        present = {key for key, one in known.items() if one.missing_since is None}
        # One that is not understood is not missing.
        gone = sorted(present - {line.key for line in lines})
        _note(done, lines, gone)
        if done.mode != Mode.ACCEPT and 100 * len(gone) > source.most_missing * len(present):
            done.outcome = Outcome.QUESTION
            done.detail = (
                f"{len(gone):,} of {len(present):,} objects are missing: nothing was written. "
                "Look at the source, or accept the shorter list."
            )
        elif done.mode != Mode.DRY:
            changed = [line for line in lines if line.action == "changed"]
            if later := len(changed[MOST_CHANGED:]):
                done.changed -= later
                done.detail = f"{done.detail} {later:,} more changes follow at once.".strip()
                # What was accepted is remembered: a list that is shorter again is a new question.
                ask(source, Mode.IMPORT)
            others = [line for line in lines if line.action != "changed"]
            write([*others, *changed[:MOST_CHANGED]])
            _remember(source, known, [line.key for line in lines if line.action != "wrong"], gone)


def write(lines: Sequence[InventoryLine]) -> None:
    """Write what is new, and what has changed one by one: models close alerts as they are saved."""
    for line in lines:
        for one in line.needed if line.action != "wrong" else ():
            if one is not None and one.pk is None:
                one.save()
    made = [line.made for line in lines if line.made and line.action == "created"]
    changed = [line.made for line in lines if line.made and line.action == "changed"]
    if made:
        type(made[0])._default_manager.bulk_create(made, batch_size=BATCH)
    for one in changed:
        one.save()


def _note(done: InventoryRun, lines: Sequence[InventoryLine], gone: Sequence[str]) -> None:
    counts = Counter(line.action for line in lines)
    done.outcome = Outcome.DONE
    done.created, done.changed = counts["created"], counts["changed"]
    done.same, done.wrong, done.missing = counts["same"], counts["wrong"], len(gone)
    if done.wrong:
        done.detail = f"{done.wrong:,} of {len(lines):,} objects are not understood: see below."
    worst_first = ("wrong", "changed", "created")
    shown = [line for action in worst_first for line in lines if line.action == action]
    rows = [["missing", key, ""] for key in gone]
    rows += [[line.action, line.key, line.said] for line in shown]
    done.lines = rows[:MOST_LINES]


def _remember(
    source: InventorySource,
    known: dict[str, InventoryObject],
    keys: Sequence[str],
    gone: Sequence[str],
) -> None:
    new = [InventoryObject(source=source, key=key) for key in keys if key not in known]
    InventoryObject.objects.bulk_create(new, batch_size=BATCH)
    back = [known[key].pk for key in keys if key in known and known[key].missing_since]
    lost = [known[key].pk for key in gone]
    for pks, since in ((back, None), (lost, timezone.now())):
        for start in range(0, len(pks), BATCH):
            part: models.QuerySet[InventoryObject] = InventoryObject.objects.filter(
                pk__in=pks[start : start + BATCH]
            )
            part.update(missing_since=since)
