"""The rules for Prometheus, tried with its own promtool, and against the metrics that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
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


def lost(written: Any, read: Any, place: str = "") -> Iterator[str]:
    """Yield the places of what is in one JSON value and not in another."""
    if isinstance(written, dict) and isinstance(read, dict):
        for name, value in written.items():
            yield from lost(value, read.get(name), f"{place}/{name}")
    elif isinstance(written, list) and isinstance(read, list):
        for number, pair in enumerate(zip_longest(written, read)):
            yield from lost(*pair, f"{place}/{number}")
    elif written != read:
        yield place


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ((), ""),
        *(((), "refrsh"), (("templating", "list", 1), "multii"), (("panels", 0), "gridpos")),
        *((("panels", 0, "options"), "colourMode"), (("panels", 0, "targets", 0), "legend")),
        (("panels", 0, "fieldConfig", "defaults"), "units"),
    ],
)
def test_grafanas_own_schemas_know_all_that_the_dashboard_says(
    place: tuple[str | int, ...], name: str
) -> None:
    """What its SDK reads and writes again is what is known, also to each panel and data source."""
    register_default_plugins()
    dashboard = json.loads(DASHBOARD.read_text())
    if name:
        part = dashboard
        for step in place:
            part = part.setdefault(step, {}) if isinstance(step, str) else part[step]
        part[name] = 1
    read = json.loads(json.dumps(Dashboard.from_json(dashboard), cls=JSONEncoder))
    expected = ["/" + "/".join(map(str, (*place, name)))] if name else []
    assert list(lost(dashboard, read)) == expected
