"""Retired words (docs/glossary.md) do not come back: each file has at most as many as it had."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness import REPOSITORY, tracked_files

BASELINE = Path(__file__).with_name("retired_words.txt")
# Written so that no pattern finds itself.
RETIRED = re.compile(
    r"\b(latenes[s]|troubl[e]s?|tell[s]?|tol[d]|stranger[s]?|hus[h]|ane[w]|whoeve[r]|at han[d]"
    r"|latel[y]|is no (?:port|host name)|so (?:many|long)(?! as)|past its (?:time|retention)"
    r"|keeps hous[e]|forge[t]s?|forgotte[n]|a slow on[e])\b",
    re.IGNORECASE,
)
TEXTS = ("app/", "docs/", "env/", "docker/", "configs/", "README.md", "CONTRIBUTING.md", "Makefile")
EXEMPT = ("docs/glossary.md",)


def retired_words() -> dict[str, int]:
    """Return the number of retired words in each file that has any; migrations are history."""
    found = {}
    for name in tracked_files():
        if name.startswith(TEXTS) and name not in EXEMPT and "/migrations/" not in name:
            content = (REPOSITORY / name).read_bytes()
            words = [] if b"\0" in content else RETIRED.findall(content.decode())
            if words:
                found[name] = len(words)
    return found


def baseline() -> dict[str, int]:
    """Return the numbers of the baseline, which only shrink."""
    lines = (line.split() for line in BASELINE.read_text(encoding="utf-8").splitlines())
    return {name: int(number) for number, name in lines}


@pytest.mark.parametrize("sample", ["a stranger" + "s' page", "It tel" + "ls", "so lon" + "g"])
def test_a_retired_word_is_found(sample: str) -> None:
    assert RETIRED.search(sample)


def test_no_file_has_more_retired_words_than_it_had() -> None:
    known = baseline()
    more = {name: n for name, n in retired_words().items() if n > known.get(name, 0)}
    assert more == {}, "docs/glossary.md has the words to write in their place"


if __name__ == "__main__":
    lines = [f"{number} {name}\n" for name, number in sorted(retired_words().items())]
    BASELINE.write_text("".join(lines), encoding="utf-8")
