"""The Celery application and the base class of every task."""

import gc
import logging
import os
from typing import Any

import celery
from billiard.einfo import ExceptionInfo
from celery.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from celery.signals import task_prerun, worker_before_create_process
from django.db import Error, InterfaceError, OperationalError, close_old_connections

from soc.runtime.control import leave_events_undeclared
from soc.runtime.liveness import Liveness
from soc.runtime.queues import BY_APPLICATION, queue_of

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "soc.settings")
# `migrate` has run the checks; they would load the whole site's pages into every process.
os.environ.setdefault("CELERY_SKIP_CHECKS", "1")

logger = logging.getLogger(__name__)


class Task(celery.Task):
    """A task that survives its worker's death and a database restart.

    Delivery is at-least-once, so every task body must be idempotent. Losing the database is
    retried with exponential backoff and jitter; any other failure is recorded where the board
    shows it, a soft time limit as TIMEOUT.
    """

    autoretry_for = (OperationalError, InterfaceError)
    retry_backoff = 2
    retry_backoff_max = 300
    retry_jitter = True
    max_retries = 8

    def apply_async(self, *args: Any, **options: Any) -> Any:
        """Publish the task; a message that no queue takes raises instead of vanishing."""
        options.setdefault("mandatory", True)
        return super().apply_async(*args, **options)

    def signature_from_request(
        self,
        request: Any = None,
        args: Any = None,
        kwargs: Any = None,
        queue: str | None = None,
        **options: Any,
    ) -> Any:
        """Return the signature of a retry, routed by the task's name as its first run was.

        Celery repeats the exchange and the key by which the message came. Those of a delayed
        message are internal to the broker and nobody may publish there, but Celery replaces them
        only where the retry is delayed itself: with jitter a countdown may be 0 seconds.
        """
        return super().signature_from_request(
            request, args, kwargs, queue or queue_of(self.name).name, **options
        )

    def on_failure(
        self,
        exc: Exception,
        task_id: str,
        args: Any,
        kwargs: Any,
        einfo: ExceptionInfo,
    ) -> None:
        """Record the failure; the log has it in any case.

        Celery calls this in the worker's main process when a hard time limit killed the child.
        """
        from soc.core.models import TaskFailure

        timed_out = isinstance(exc, SoftTimeLimitExceeded | TimeLimitExceeded)
        try:
            TaskFailure.objects.create(
                task=self.name,
                task_id=task_id,
                kind=TaskFailure.Kind.TIMEOUT if timed_out else TaskFailure.Kind.ERROR,
                error=f"{type(exc).__name__}: {exc}"[:2000],
                traceback=str(einfo)[-20_000:],
                arguments=f"{args!r} {kwargs!r}"[:2000],
            )
        except Error:
            logger.exception("The failure of %s (%s) could not be recorded", self.name, task_id)


def route(name: str, *_: object, **__: object) -> dict[str, str]:
    """Route a task to the queue of its application.

    Raises:
        LookupError: the task's application has no queue.
    """
    return {"queue": queue_of(name).name}


def tasks_of(application: str) -> str:
    """Return the module with an application's tasks."""
    return f"soc.{application}.tasks"


app = celery.Celery("soc", task_cls=Task, control="soc.runtime.control:Control")
app.on_after_configure.connect(leave_events_undeclared)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.imports = [tasks_of(name) for name in BY_APPLICATION]
app.steps["consumer"].add(Liveness)


@task_prerun.connect
def _begin_with_a_working_connection(**_: object) -> None:
    """Drop a kept database connection that has died.

    Connections are kept between tasks, because a new one costs more than most tasks; after a
    restart of the database the kept ones are dead, and nothing in Celery would ever look.
    """
    close_old_connections()


@worker_before_create_process.connect
def _share_memory_with_the_child(**_: object) -> None:
    """Keep the child's garbage collector off what the parent loaded: it would copy every page."""
    gc.collect()
    gc.freeze()
