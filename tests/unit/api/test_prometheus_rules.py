"""The rules for Prometheus, tried with its own promtool, and against the metrics that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from programs import Program

from harness import REPOSITORY, missing

FOLDER = REPOSITORY / "configs" / "prometheus"
RULES = FOLDER / "soc.rules.yml"
DASHBOARD = FOLDER / "soc.dashboard.json"


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


def test_the_dashboard_shows_metrics_of_ours_each_in_a_place(program: Program) -> None:
    page = program.get("/metrics").content.decode()
    ours = set(re.findall(r"^# TYPE (soc_\w+)", page, re.MULTILINE))
    labels = set(re.findall(r"[{,](\w+)=", page)) | {"job", "instance"}
    dashboard = json.loads(DASHBOARD.read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len({p["title"] for p in panels})
    shown: set[str] = set()
    covered: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & covered, panel["title"]
        assert at["x"] + at["w"] <= 24, "a row has 24 columns"
        covered |= cells
        assert panel["datasource"]["uid"] == "${source}"
        for target in panel["targets"]:
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels
            assert "$instance" in target["expr"]
            shown |= set(re.findall(r"\bsoc_\w+", target["expr"]))
    assert shown <= ours, "what nobody exports"
    assert len(shown) >= 15


def test_every_expression_of_the_dashboard_is_promql(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        missing("promtool is missing: install Debian's package prometheus")
    dashboard = json.loads(DASHBOARD.read_text())
    rules = [
        {"record": f"panel_{panel['id']}_{number}", "expr": target["expr"]}
        for panel in dashboard["panels"]
        for number, target in enumerate(panel["targets"])
    ]
    file = tmp_path / "rules.yml"
    # JSON is YAML.
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    command = ("promtool", "check", "rules", str(file))
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
