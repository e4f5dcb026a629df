"""django-celery-beat's own tests of its scheduler, from its sdist, run against ours."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from harness import REPOSITORY, run

SCHEDULER = "t/unit/test_schedulers.py"
CLASSES = ("test_DatabaseSchedulerFromAppConf", "test_DatabaseScheduler", "test_models")
"""The others test django-celery-beat's entries and admin, which are not ours."""

_DIRTY = "run data is not kept until a sync: it is written when a run is granted"
_COPY = "`schedule` is read anew each time; the plan is not a dictionary of entries"
_HEAP = "the heap is the plan's, and is not made anew"
EXCEPTIONS = {
    "test_DatabaseSchedulerFromAppConf::test_constructor": _DIRTY,
    "test_DatabaseScheduler::test_constructor": _DIRTY,
    "test_DatabaseScheduler::test_all_as_schedule": "what is far away is loaded, too",
    "test_DatabaseScheduler::test_should_sync": _DIRTY,
    "test_DatabaseScheduler::test_reserve": _DIRTY,
    "test_DatabaseScheduler::test_sync_not_saves_last_run_at_while_schedule_changed": _DIRTY,
    "test_DatabaseScheduler::test_sync_saves_last_run_at": _DIRTY,
    "test_DatabaseScheduler::test_sync_syncs_before_save": _DIRTY,
    "test_DatabaseScheduler::test_sync_not_dirty": _DIRTY,
    "test_DatabaseScheduler::test_sync_object_gone": _DIRTY,
    "test_DatabaseScheduler::test_sync_rollback_on_save_error": _DIRTY,
    "test_DatabaseScheduler::test_periodic_task_disabled_and_enabled": _DIRTY,
    "test_DatabaseScheduler::test_periodic_task_disabled_while_reserved": _DIRTY,
    "test_DatabaseScheduler::test_heap_size_is_constant": _HEAP,
    "test_DatabaseScheduler::test_scheduler_schedules_equality_on_change": _COPY,
    "test_DatabaseScheduler::test_heap_always_return_the_first_item": _HEAP,
    "test_DatabaseScheduler::test_starttime_trigger": _HEAP,
    "test_DatabaseScheduler::test_crontab_with_start_time_tick": _HEAP,
}
"""Tests that ask for what is meant to be different, and why."""

PLUGIN = """
def pytest_configure(config):
    import django
    django.setup()
    from django_celery_beat import schedulers
    from soc.beat.scheduler import Scheduler
    schedulers.DatabaseScheduler = Scheduler
"""
SETTINGS = """
from t.proj.settings import *
INSTALLED_APPS = [*INSTALLED_APPS, "soc.beat"]
DATABASES["default"]["NAME"] = ":memory:"
"""


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    """The sdist of the installed version, without the package itself."""
    version = importlib.metadata.version("django-celery-beat")
    requirement = f"django-celery-beat=={version}"
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps")
    run(*pip, "--no-binary=:all:", f"--dest={tmp_path}", requirement)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    (folder / "django_celery_beat").rename(tmp_path / "unused")
    (folder / "ours.py").write_text(SETTINGS)
    (folder / "plug.py").write_text(PLUGIN)
    tests = folder / SCHEDULER
    # pytest 9 refuses marks on fixtures, where they have never done anything.
    text = re.sub(
        r" *@pytest\.mark\.django_db\n( *@pytest\.fixture)", r"\1", tests.read_text("utf-8")
    )
    tests.write_text(text, "utf-8")
    return folder


def test_what_is_meant_to_be_the_same_is_the_same(upstream: Path) -> None:
    chosen = [f"{SCHEDULER}::{name}" for name in CLASSES]
    excepted = [f"--deselect={SCHEDULER}::{name}" for name in EXCEPTIONS]
    path = os.pathsep.join((str(REPOSITORY / "app"), os.environ.get("PYTHONPATH", "")))
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", "setup.cfg", "-p", "plug", "--ds=ours",
         "-W", "ignore", *chosen, *excepted],
        cwd=upstream,
        env=os.environ | {"PYTHONPATH": path, "DJANGO_SETTINGS_MODULE": "ours"},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout
    assert f"{len(EXCEPTIONS)} deselected" in result.stdout
