"""Deadlocks: the database ends one of two transactions, which may simply begin again."""

import functools
import logging
import random
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from django.db import OperationalError, connection

DEADLOCK = 1213
"""MariaDB's ER_LOCK_DEADLOCK: the whole transaction is rolled back."""

TRIES = 4
PAUSE = 0.05
"""Seconds before the second try, doubled each time, with jitter."""

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")

logger = logging.getLogger(__name__)


def again_after_deadlock(function: Callable[Arguments, Answer]) -> Callable[Arguments, Answer]:
    """Call a function that is one transaction again after a deadlock.

    Inside a caller's transaction the error is the caller's: all of that is gone.
    """

    @functools.wraps(function)
    def wrapper(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
        for attempt in range(TRIES - 1):
            try:
                return function(*args, **kwargs)
            except OperationalError as error:
                if connection.in_atomic_block or error.args[:1] != (DEADLOCK,):
                    raise
                logger.warning("%s ran into a deadlock and begins again", function.__qualname__)
            time.sleep(PAUSE * 2**attempt * random.uniform(0.5, 1.5))  # noqa: S311
        return function(*args, **kwargs)

    return wrapper
