"""Keeps the delays of the database and of the broker away from the messages that are due."""

from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import Any


class Inline:
    """Runs a job where it stands: for a database in a file, which does not keep one waiting."""

    def submit(self, job: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run the job and return its result as a future that is done."""
        future: Future[Any] = Future()
        _run(future, job, arguments)
        return future

    def shutdown(self) -> None:
        """Nothing is left to do."""


class Background:
    """Runs jobs one after the other in a thread of its own.

    The end of the process does not wait for it, unlike a ThreadPoolExecutor's: a name server that
    does not answer costs 10 s, and no timeout of a driver applies to it.
    """

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None]
        self._jobs = SimpleQueue()
        Thread(target=self._work, name=name, daemon=True).start()

    def submit(self, job: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Have the job run after those before it and return its result as a future."""
        future: Future[Any] = Future()
        self._jobs.put((future, job, arguments))
        return future

    def shutdown(self) -> None:
        """Let the thread end after the jobs it has."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            _run(*item)


def _run(future: Future[Any], job: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        result = job(*arguments)
    except Exception as error:
        future.set_exception(error)
    else:
        future.set_result(result)
