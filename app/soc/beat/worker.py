"""Keeps the database's delays away from the broker's messages."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Inline:
    """Runs a job where it stands: for a database in a file, which does not keep one waiting."""

    def submit(self, job: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run the job and return its result as a future that is done."""
        future: Future[Any] = Future()
        try:
            future.set_result(job(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def shutdown(self) -> None:
        """Nothing is left to do."""


def worker(vendor: str) -> Inline | ThreadPoolExecutor:
    """Return what runs the database's jobs, one after the other."""
    if vendor == "sqlite":
        return Inline()
    return ThreadPoolExecutor(1, thread_name_prefix="beat-database")
