"""A Python process in a container that is kept between calls: a new one imports for a second."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from collections.abc import Callable

# Each call runs in a child of its own, so that none finds what another has left.
SERVER = """
import json, os, signal, sys, traceback
import django
from django.db import connections
django.setup()
connections.close_all()
for line in sys.stdin:
    print("begun", flush=True)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(900)
        os.dup2(writer, 1)
        status = 0
        try:
            exec(compile(json.loads(line), "test", "exec"), {"__name__": "__main__"})
        except BaseException:
            status = 1
            print(traceback.format_exc())
        sys.stdout.flush()
        os._exit(status)
    os.close(writer)
    with open(reader) as printed:
        text = printed.read()
    print(json.dumps([os.waitpid(child, 0)[1], text]), flush=True)
"""


class Interpreter:
    """Runs code in a container; started with the first call, and again after a restart."""

    def __init__(self, start: Callable[..., subprocess.Popen[str]]) -> None:
        """Take what starts a command in the container with the given streams."""
        self._start = start
        self._process: subprocess.Popen[str] | None = None
        self._one_at_a_time = threading.Lock()

    def run(self, code: str) -> str:
        """Return what code prints.

        Raises:
            AssertionError: it failed, or the container does not run.
        """
        with self._one_at_a_time:
            if not self._begin(code) and not self._begin(code):
                raise AssertionError(f"no Python answers in the container:\n{self._errors()}")
            answer = self._process.stdout.readline()
        if not answer:
            raise AssertionError(f"the container ended meanwhile:\n{self._errors()}")
        status, printed = json.loads(answer)
        if status:
            raise AssertionError(f"this ended with {status}:\n{code}\n{printed}{self._errors()}")
        return printed

    def _begin(self, code: str) -> bool:
        """Hand code over; return whether it began: in a container that is gone it has not."""
        if self._process is None:
            self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
            self._process = self._start(
                *("python3", "-c", SERVER),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
            )
        try:
            self._process.stdin.write(json.dumps(code) + "\n")
            self._process.stdin.flush()
            if self._process.stdout.readline():
                return True
        except BrokenPipeError:
            pass
        self._process.wait()
        self._process = None
        return False

    def _errors(self) -> str:
        self._log.seek(0)
        return self._log.read()
