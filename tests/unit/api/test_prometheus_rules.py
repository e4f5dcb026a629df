"""The rules for Prometheus, tried with its own promtool, and against the metrics that there are."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from programs import Program

from harness import REPOSITORY, missing

FOLDER = REPOSITORY / "configs" / "prometheus"
RULES = FOLDER / "soc.rules.yml"


@pytest.mark.parametrize(
    "command", [("check", "rules", "soc.rules.yml"), ("test", "rules", "soc.test.yml")]
)
def test_promtool_takes_the_rules(command: tuple[str, ...]) -> None:
    if shutil.which("promtool") is None:
        missing("promtool is missing: install Debian's package prometheus")
    ran = subprocess.run(
        ("promtool", *command), cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_metric_of_a_rule_is_one_of_ours(program: Program) -> None:
    page = program.get("/metrics").content.decode()
    ours = set(re.findall(r"^# TYPE (soc_\w+)", page, re.MULTILINE))
    used = set(re.findall(r"^ +expr: .*?(soc_\w+)", RULES.read_text(), re.MULTILINE))
    assert used
    assert used <= ours
