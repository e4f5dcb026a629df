"""`make app NAME=demo`: a folder and at most four lines, and every contract holds untouched."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import copy_tree, run
from skeleton import new

CHECKS = (
    *("test_contracts.py", "test_applications.py", "test_admin.py", "test_docs.py"),
    *("test_words.py", "demo"),
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the tree in which everything is committed."""
    copy = copy_tree(tmp_path / "copy")
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    run("git", "init", "-q", cwd=copy)
    run("git", "add", "-A", cwd=copy)
    run("git", *who, "commit", "-qm", "copy", cwd=copy)
    return copy


def lines_outside(tree: Path) -> list[str]:
    """Return the lines that were added to files that were there already."""
    diff = run("git", "diff", "-U0", cwd=tree)
    return [line for line in diff.splitlines() if line[:1] == "+" and line[:3] != "+++"]


def test_a_new_application_passes_every_contract_and_answers(tree: Path) -> None:
    new.main("demo", tree)
    assert len(lines_outside(tree)) <= 4
    run_tests(tree, *CHECKS)


def run_tests(tree: Path, *names: str) -> None:
    """Run unit tests of another tree, in a process of their own."""
    # This process is a site's: the other one makes its own.
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    tests = [f"tests/unit/{name}" for name in names]
    done = subprocess.run(
        (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests),
        cwd=tree, env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


@pytest.mark.parametrize("name", ["", "2fast", "Demo", "a-b", "class", "alerts", "metrics"])
def test_a_name_that_cannot_be_one_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "app/soc/alerts").mkdir(parents=True)
    (tmp_path / "app/soc/metrics.py").touch()
    with pytest.raises(SystemExit, match=r"Invalid name|is taken"):
        new.main(name, tmp_path)


def test_a_name_of_several_words_becomes_a_class_of_one(tmp_path: Path) -> None:
    made = new._copy(new.SKELETON / "app", tmp_path / "dns_names", "dns_names")
    text = "".join(file.read_text() for file in made)
    assert "class DnsNamesCounter(" in text
    assert '"dns_names.dnsnamescounter"' in text
    assert "demo" not in text.lower()
