"""The tests' own way into a container, tried here without one."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from harness import REPOSITORY
from interpreter import Interpreter


def start(_: str, *arguments: str, **streams: Any) -> subprocess.Popen[str]:
    folder = REPOSITORY / "app"
    return subprocess.Popen([sys.executable, *arguments], cwd=folder, text=True, **streams)


def test_calls_share_a_process_and_nothing_else_and_a_restart_is_noticed() -> None:
    started: list[subprocess.Popen[str]] = []
    interpreter = Interpreter(lambda *a, **s: started.append(start(*a, **s)) or started[-1])
    assert interpreter.run("import soc.alerts.models as m; m.left = 1; print('ä')") == "ä\n"
    assert interpreter.run("import soc.alerts.models as m; print(hasattr(m, 'left'))") == "False\n"
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        interpreter.run("1 / 0")
    started[0].kill()
    parents = "import os; print(os.getppid())"
    assert int(interpreter.run(parents)) == started[1].pid
    assert len(started) == 2
    started[1].kill()
    started[1].wait()


def test_a_container_that_does_not_run_is_reported() -> None:
    def refuse(*_: str, **streams: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(["sh", "-c", "echo no such container >&2"], text=True, **streams)

    with pytest.raises(AssertionError, match="no such container"):
        Interpreter(refuse).run("print(1)")
