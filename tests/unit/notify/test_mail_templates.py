"""Texts: templates that are refused, and what may stand in a mail whatever a notice holds."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.utils.safestring import mark_safe
from hypothesis import given
from hypothesis import strategies as st

from mailing import NOTICE
from soc.core.severity import Severity
from soc.notify import templates
from soc.notify.models import Subscription
from soc.notify.templates import Notice, cleaned, render


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("{% if title %}", r"line 1, \{% if title %\}: .*endif"),
        ("ok\n\n{{ title|timesince }}", r"line 3, \{\{ title\|timesince \}\}: "),
        ("ok\n{{ 5|divisibleby:0 }} x", r"line 2, \{\{ 5\|divisibleby:0 \}\}: .*zero"),
        ("{% widthratio a b c %}", r"line 1, \{% widthratio a b c %\}: "),
        ("a\nb\n{{ title|nothing }}", r"line 3, \{\{ title\|nothing \}\}: .*nothing"),
        ("a\n{% nothing %}", r"line 2, \{% nothing %\}: .*nothing"),
        ("{% for a in facts %}\n{% endif %}", r"line 2, \{% endif %\}: "),
    ],
)
def test_a_broken_template_is_refused_with_its_line_and_tag(source: str, place: str) -> None:
    with pytest.raises(ValidationError, match=f"not a valid template: {place}"):
        templates.validate(source)


@pytest.mark.django_db
def test_a_broken_template_is_refused_when_it_is_saved(subscription: Subscription) -> None:
    subscription.full_clean()
    for field in ("subject_template", "text_template"):
        broken = Subscription.objects.get()
        setattr(broken, field, "{% if %}")
        with pytest.raises(ValidationError, match="line 1"):
            broken.full_clean()


@pytest.mark.parametrize("source", ["{% load static %}", '{% include "x" %}', "{% extends 'x' %}"])
def test_a_template_can_reach_nothing_outside(source: str) -> None:
    with pytest.raises(ValidationError):
        templates.validate(source)


def rendered(**values: Any) -> templates.Rendered:
    return render(cleaned(Notice(**{**vars(NOTICE), **values})), site="here")


@pytest.mark.parametrize(
    ("status", "word"), [("", "CRITICAL"), ("resolved", "RESOLVED"), ("fl\r\napping", "FL APPING")]
)
def test_the_status_heads_the_subject_or_else_the_severity(status: str, word: str) -> None:
    notice = rendered(severity=Severity.CRITICAL, status=status)
    assert notice.subject == f"{word}: A title (here)"


def test_html_in_a_notice_is_text() -> None:
    evil = "<script>alert(1)</script>"
    notice = rendered(title=evil, summary=mark_safe(evil), facts={evil: mark_safe(evil)})
    assert "<script" not in notice.html
    assert notice.html.count("&lt;script&gt;") == 5
    assert evil in notice.text


def test_a_link_is_a_web_address_or_none() -> None:
    assert "javascript" not in rendered(link="javascript:alert(1)").html
    assert "https://localhost/x" in rendered().html


def test_facts_of_any_kind_are_shown() -> None:
    facts: dict[Any, Any] = {1: None, "list": [1, {"a": 2}], "bytes": b"\xff", "number": 1.5}
    text = rendered(facts=facts).text
    for line in ("1: None", "list: [1, {'a': 2}]", r"bytes: b'\xff'", "number: 1.5"):
        assert line in text


def test_control_characters_and_surrogates_are_replaced() -> None:
    notice = rendered(title="a\x00b\x1b[31m\ud800c", facts={"x\x00": "line\r\nnext\x07"})
    assert notice.subject == "WARNING: a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}[31m" \
        "\N{REPLACEMENT CHARACTER}c (here)"  # fmt: skip
    assert "line\nnext\N{REPLACEMENT CHARACTER}" in notice.text
    notice.html.encode()


def test_a_fact_of_five_megabytes_is_cut_and_says_so() -> None:
    notice = rendered(facts={"big": "x" * 5_000_000, "small": "seen"})
    for body in (notice.text, notice.html):
        assert "[cut, of 5,000,000 characters]" in body
        assert "1 more facts" in body or "seen" in body
        assert len(body) < 100_000


def test_a_thousand_facts_are_cut_and_say_so() -> None:
    notice = rendered(facts={f"fact {number}": number for number in range(1000)})
    assert "fact 199: 199" in notice.text
    assert "[cut: 800 more facts]" in notice.text
    assert "fact 200:" not in notice.text


def test_a_table_is_cut_between_two_rows() -> None:
    table = "".join(f"{number},value\r\n" for number in range(50_000))
    rows = cleaned(Notice(**{**vars(NOTICE), "csv": table})).csv.split("\r\n")
    assert rows[-1] == ""
    assert "[cut, of " in rows[-2]
    assert all(row.endswith(",value") for row in rows[:-2])


@given(st.text(max_size=400), st.text(max_size=400))
def test_no_title_or_template_makes_a_second_line(title: str, status: str) -> None:
    subject = rendered(title=title, status=status).subject
    assert subject.splitlines() in ([subject], [])
    assert len(subject) <= templates.LONGEST_LINE
    subject.encode()
