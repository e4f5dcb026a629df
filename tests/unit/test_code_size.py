"""What keeps the code easy to find and to read: names of their own, short files and functions."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from harness import REPOSITORY

SOC = REPOSITORY / "app" / "soc"
LONGEST_FILE = 500
LONGEST_FUNCTION = 60
MOST_SHARED_NAMES = 3
"""Percent of the names of classes that may stand in several modules."""

CONVENTIONAL = {"Meta", "Command"}
"""Django finds these by their names: nobody looks for them by it, and none could have another."""


def modules() -> Iterator[tuple[Path, ast.Module]]:
    """Yield our modules; migrations are history."""
    for path in sorted(SOC.rglob("*.py")):
        if "migrations" not in path.parts:
            yield path.relative_to(SOC), ast.parse(path.read_text(encoding="utf-8"))


def test_names_of_classes_lead_to_one_module() -> None:
    places = defaultdict(set)
    for path, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and node.name not in CONVENTIONAL:
                places[node.name].add(str(path))
    shared = {name: sorted(paths) for name, paths in places.items() if len(paths) > 1}
    print(f"{len(shared)} of {len(places)} names stand in several modules")
    assert 100 * len(shared) < MOST_SHARED_NAMES * len(places), shared


def test_no_file_is_long() -> None:
    lengths = {str(path): len((SOC / path).read_text().splitlines()) for path, _ in modules()}
    assert {path: n for path, n in lengths.items() if n > LONGEST_FILE} == {}


def test_no_function_is_long() -> None:
    found = {}
    for path, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > LONGEST_FUNCTION:
                    found[f"{path}: {node.name}"] = length
    assert found == {}
