"""The health checks' `steady`: how often it asks, and what it answers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from harness import REPOSITORY


class Service:
    """A service whose check fails for some time, and a `sleep` that only says for how long."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        programs = {
            "sleep": 'echo "$1" >>sleeps',
            "asked": 'echo x >>asks; read -r ok <ok; eval "$ok"',
        }
        for name, code in programs.items():
            (folder / name).write_text(f"#!/bin/sh\n{code}\n")
            (folder / name).chmod(0o755)

    def check(self, answers: str) -> tuple[bool, list[str], int]:
        """Run the health check: whether it passed, its pauses, and how often it asked."""
        (self.folder / "ok").write_text(answers)
        for name in ("sleeps", "asks"):
            (self.folder / name).write_text("")
        code = subprocess.run(
            [REPOSITORY / "configs" / "health" / "steady", "asked"],
            cwd=self.folder,
            env={"PATH": f"{self.folder}:{os.environ['PATH']}", "TMPDIR": str(self.folder)},
            stdout=subprocess.DEVNULL,
            check=False,
        ).returncode
        pauses, asks = ((self.folder / name).read_text().split() for name in ("sleeps", "asks"))
        return code == 0, pauses, len(asks)


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path)


def test_a_service_that_starts_is_asked_until_it_is_healthy(service: Service) -> None:
    third_time = '[ "$(wc -l <asks)" -ge 3 ]'
    assert service.check(third_time) == (True, ["0.5", "0.5"], 3)


def test_a_service_that_does_not_start_is_unhealthy_in_the_end(service: Service) -> None:
    passed, pauses, asks = service.check("false")
    assert (passed, asks) == (False, len(pauses))
    assert sum(map(float, pauses)) == 5


def test_a_healthy_service_is_asked_once_and_its_answer_held(service: Service) -> None:
    service.check("true")
    assert service.check("true") == (True, ["20"], 1)


def test_a_service_that_fails_is_reported_at_once_and_asked_often_again(service: Service) -> None:
    service.check("true")
    assert service.check("false") == (False, [], 1)
    assert service.check("true") == (True, [], 1)
