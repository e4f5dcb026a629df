"""Servers from a table: every line is checked and told before anything is written."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from answering import credential
from django.core.management import CommandError, call_command
from django.test import Client
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from soc.ldap_probe import importing
from soc.ldap_probe.models import DirectoryServer, Profile

pytestmark = pytest.mark.django_db

TABLE = """\
host,port,security,credential,profile,site,group,interval_minutes,enabled,notes
dc1.example.org,636,ldaps,reader,standard,Vancouver,people,5,yes,"a, quoted note"
DC2.Example.Org.,389,STARTTLS,,,Vancouver,people,10,no,
"""


def actions(report: importing.ImportReport) -> list[tuple[int, str, str]]:
    return [(line.number, line.action, line.name) for line in report.lines]


def test_a_dry_run_tells_every_line_and_writes_nothing() -> None:
    credential()
    report = importing.run(TABLE, dry=True)
    assert actions(report) == [
        (2, "new", "dc1.example.org:636"),
        (3, "new", "dc2.example.org:389"),
    ]
    assert (report.in_words, report.done) == (
        "This would import: 2 new, 0 changed, 0 the same.",
        False,
    )
    assert not DirectoryServer.objects.exists()


def test_an_import_writes_what_the_dry_run_told_and_a_second_one_nothing() -> None:
    reader = credential()
    assert importing.run(TABLE).in_words == "Imported: 2 new, 0 changed, 0 the same."
    first, second = DirectoryServer.objects.order_by("host")
    assert (first.credential, first.profile.name, first.notes) == (
        reader,
        "standard",
        "a, quoted note",
    )
    assert (second.security, second.interval_minutes, second.enabled) == ("starttls", 10, False)
    assert importing.run(TABLE).in_words == "Imported: 0 new, 0 changed, 2 the same."


def test_columns_that_are_not_there_stay_as_they_are() -> None:
    credential()
    importing.run(TABLE)
    report = importing.run("host;site\ndc1.example.org;Oslo\n")
    assert [(line.action, line.said) for line in report.lines] == [("changed", "site")]
    server = DirectoryServer.objects.get(host="dc1.example.org")
    assert (server.site, server.group, server.profile) == (
        "Oslo",
        "people",
        Profile.objects.get(name="standard"),
    )


def test_json_means_the_same_as_csv() -> None:
    rows = [{"host": "dc1", "port": 389, "security": "plain", "enabled": False}]
    assert importing.run(json.dumps({"servers": rows})).done
    assert importing.run(json.dumps(rows)).in_words == "Imported: 0 new, 0 changed, 1 the same."
    server = DirectoryServer.objects.get()
    assert (server.port, server.security, server.enabled) == (389, "plain", False)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (",636,ldaps,,", "host: This field cannot be blank."),
        ("dc1,x,ldaps,,", "port: 'x' is not a number."),
        ("dc1,70000,ldaps,,", "less than or equal to 65535"),
        ("dc1,²,ldaps,,", "port: '²' is not a number."),
        ("dc1,636,tls,,", "'tls' is not a valid choice"),
        ("dc1,636,ldaps,nobody,", "credential: there is no 'nobody'"),
        ("dc1,636,ldaps,,maybe", "enabled: 'maybe' is neither yes nor no."),
        ("dc1,636,ldaps,,,more", "more values than the head has columns"),
        ("dc0,636,ldaps,,", "The same server stands in line 2."),
    ],
)
def test_one_wrong_line_is_told_and_nothing_is_imported(line: str, said: str) -> None:
    head = "host,port,security,credential,enabled\ndc0,636,ldaps,,\n"
    report = importing.run(f"{head}{line}\n")
    assert said in report.lines[-1].said
    assert (report.lines[-1].number, report.wrong, report.done) == (3, 1, False)
    assert report.in_words == "Nothing is imported: 1 of 2 lines are wrong."
    assert not DirectoryServer.objects.exists()


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("host,password\ndc1,secret\n", "Unknown columns: 'password'"),
        ("name\ndc1\n", "Unknown columns: 'name'"),
        ("port\n636\n", "There is no column host."),
        ("", "There is no column host."),
        ("[1]", "A list of objects is needed"),
        ("{", "This is not JSON"),
        ("[" * 100_000, "This is not JSON"),
    ],
)
def test_a_table_that_is_none_says_what_is_wrong_with_it(table: str, said: str) -> None:
    report = importing.run(table)
    assert said in report.lines[0].said
    assert report.wrong == 1


def test_a_table_without_a_line_imports_nothing() -> None:
    assert not importing.run("host\n").done


def test_a_table_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "MOST_LINES", 3)
    report = importing.run("host\n" + "".join(f"dc{n}\n" for n in range(5)))
    assert "more than 3 lines" in report.lines[-1].said
    assert not DirectoryServer.objects.exists()


class TestAnyText(TestCase):
    """Whatever is uploaded is answered."""

    @settings(max_examples=60, deadline=None)
    @given(st.text(max_size=300), st.booleans())
    def test_no_text_breaks_the_import(self, text: str, headed: bool) -> None:
        report = importing.run(f"host,port,enabled\n{text}" if headed else text, dry=True)
        assert report.in_words

    @settings(max_examples=60, deadline=None)
    @given(st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(importing.COLUMNS), inner, max_size=4),
        max_leaves=10,
    ))  # fmt: skip
    def test_no_json_breaks_the_import(self, value: Any) -> None:
        assert importing.run(json.dumps([value]), dry=True).in_words


def test_the_command_imports_a_file_and_fails_on_a_wrong_one(tmp_path: Path) -> None:
    table, out = tmp_path / "servers.csv", io.StringIO()
    table.write_text("host,site\ndc1,Oslo\n")
    call_command("directories", "import", str(table), "--dry-run", stdout=out)
    assert "     2 new      dc1:636 Oslo\nThis would import: 1 new" in out.getvalue()
    call_command("directories", "import", str(table), stdout=out)
    assert DirectoryServer.objects.count() == 1
    table.write_text("host,port\ndc1,x\n")
    with pytest.raises(CommandError, match="Nothing is imported: 1 of 1 lines are wrong"):
        call_command("directories", "import", str(table), stdout=out)
    with pytest.raises(CommandError, match="cannot be read"):
        call_command("directories", "import", str(tmp_path / "none"), stdout=out)


def test_the_page_shows_the_dry_run_and_then_imports(browser: Client) -> None:
    table = io.BytesIO("host,site\ndc1,Oslo\n".encode("utf-8-sig"))
    table.name = "servers.csv"
    page = browser.post("/directories/import/", {"file": table, "action": "try"}, secure=True)
    assert "This would import: 1 new" in page.content.decode()
    assert not DirectoryServer.objects.exists()
    text = page.context["form"]["text"].value()
    answer = browser.post("/directories/import/", {"text": text, "action": "import"}, secure=True)
    assert (answer.status_code, answer.url) == (302, "/directories/")
    assert DirectoryServer.objects.get().site == "Oslo"


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"\xff\xfe\x00", "not UTF-8"), (b"x" * 2_000_001, "more than 2,000,000 bytes")],
)
def test_the_page_refuses_a_file_that_is_no_table(
    browser: Client, content: bytes, said: str
) -> None:
    table = io.BytesIO(content)
    table.name = "servers.csv"
    page = browser.post("/directories/import/", {"file": table}, secure=True)
    assert said in page.content.decode()
