"""What the documents point at exists, and no file holds what belongs to one machine or person."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness import REPOSITORY, tracked_files

DOCUMENTS = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]
PATH = re.compile(r"`((?:app|tests|docker|configs|docs)/[\w./-]+)`")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")
# Written so that no pattern finds itself.
UNWANTED = {
    "a default login": r"(?i)\b(admin|root|guest|user)[:/](\1|password|secret)\b|change[m]e",
    "a password in a settings file": r"^[\s-]*\w*(PASSWORD|SECRET|TOKEN)\w*(?<!_FILE)[=:]\s*[^\s$]",
    "a person's folder": r"/[h]ome/[a-z]|/[U]sers/[A-Za-z]|[A-Z]:\\[U]sers",
    "a package registry": r"py[p]i\.org|python[h]osted\.|deb\.[d]ebian\.org|registry\.[n]pmjs",
    "an image without a version": r"[\w./-]+:lates[t]\b",
}
ALLOWED = {
    # Tests show that these are refused.
    ("a default login", "tests/stack/test_refusals.py"),
    ("an image without a version", "tests/unit/test_environment.py"),
}


def test_there_are_documents() -> None:
    assert len(DOCUMENTS) >= 3


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_points_at_exists(document: Path) -> None:
    targets = LINK.findall(document.read_text(encoding="utf-8"))
    missing = [
        target
        for target in targets
        if "://" not in target and not (document.parent / target).exists()
    ]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_path_that_a_document_names_exists(document: Path) -> None:
    named = PATH.findall(document.read_text(encoding="utf-8"))
    assert [name for name in named if not (REPOSITORY / name).exists()] == []


def test_documents_lead_to_every_document() -> None:
    linked = {
        (document.parent / target).resolve()
        for document in DOCUMENTS
        for target in LINK.findall(document.read_text(encoding="utf-8"))
    }
    assert [path for path in DOCUMENTS[1:] if path not in linked] == []


@pytest.mark.parametrize(
    ("what", "sample"),
    [
        ("a default login", "amqp://guest:" + "guest@rabbitmq"),
        ("a default login", "sign in as admin/" + "admin"),
        ("a password in a settings file", "MARIADB_ROOT_" + "PASSWORD=x1"),
        ("a password in a settings file", "      MARIADB_" + "PASSWORD: x1"),
        ("a person's folder", "cd /" + "home/ann/soc"),
        ("a package registry", "--index-url https://" + "pypi" + ".org/simple"),
        ("an image without a version", "image: mariadb:" + "latest"),
    ],
)
def test_the_pattern_finds(what: str, sample: str) -> None:
    assert re.search(UNWANTED[what], sample)


@pytest.mark.parametrize("what", UNWANTED)
def test_no_file_holds(what: str) -> None:
    pattern = re.compile(UNWANTED[what], re.MULTILINE)
    found = {}
    for name in tracked_files():
        content = (REPOSITORY / name).read_bytes()
        match = None if b"\0" in content else pattern.search(content.decode())
        if match and (what, name) not in ALLOWED:
            found[name] = match[0]
    assert found == {}
