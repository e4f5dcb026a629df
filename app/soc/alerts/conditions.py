"""Conditions: what applications report about the things they watch."""

import hashlib
import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from soc.core.severity import Severity

LONGEST_SUBJECT = 200
LONGEST_SUMMARY = 2_000
LONGEST_FACT = 2_000
LONGEST_FACT_NAME = 100
MOST_FACTS = 50
MOST_AHEAD = timedelta(minutes=1)
"""How far another machine's clock may be ahead before its time is not believed."""


@dataclass(frozen=True)
class Condition:
    """How a subject is at one moment, under one rule of one application.

    ``link`` is the address of the subject's own page, ``parent`` the rule and the subject of the
    same application that this subject depends on: while that one is failing, this one's
    problem is no news.
    """

    application: str
    rule: str
    subject: str
    severity: Severity
    observed_at: datetime
    summary: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)
    link: str = ""
    site: str = ""
    parent: tuple[str, str] | None = None

    @property
    def fingerprint(self) -> str:
        """The subject's identity under its rule."""
        return fingerprint(self.application, self.rule, self.subject)

    @property
    def parent_fingerprint(self) -> str:
        """The parent's identity, or nothing."""
        return fingerprint(self.application, *self.parent) if self.parent else ""


def fingerprint(application: str, rule: str, subject: str) -> str:
    """Return the identity of a subject: the SHA-256 of its full name, in hexadecimal."""
    return hashlib.sha256("\0".join((application, rule, subject)).encode()).hexdigest()


def cleaned(condition: Condition, now: datetime) -> Condition:
    """Return a condition as it is stored: single lines, bounded lengths, no time ahead of ours.

    A sender's clock that is ahead would make every later report look older than the last one.

    Raises:
        ValueError: there is no subject, or no time zone.
    """
    subject = one_line(condition.subject, LONGEST_SUBJECT)
    if not subject:
        raise ValueError(f"A condition of {condition.application}/{condition.rule} has no subject.")
    if condition.observed_at.tzinfo is None:
        raise ValueError(f"The time of {subject} has no time zone: {condition.observed_at}.")
    parent = condition.parent
    ahead = condition.observed_at > now + MOST_AHEAD
    return replace(
        condition,
        subject=subject,
        severity=Severity(condition.severity),
        observed_at=now if ahead else condition.observed_at,
        summary=_cut(_printable(condition.summary), LONGEST_SUMMARY),
        facts=_facts(condition.facts),
        link=_printable(condition.link)[:500],
        site=one_line(condition.site, 64),
        parent=(parent[0], one_line(parent[1], LONGEST_SUBJECT)) if parent else None,
    )


def one_line(text: str, longest: int) -> str:
    """Return a text as one line; one that is too long keeps its identity by a digest."""
    line = " ".join(_printable(text).split())
    if len(line) <= longest:
        return line
    digest = hashlib.sha256(line.encode()).hexdigest()[:8]
    return f"{line[: longest - 10]}… {digest}"


def _facts(facts: Mapping[str, object]) -> dict[str, str]:
    kept = list(facts.items())[:MOST_FACTS]
    short = {
        one_line(str(name), LONGEST_FACT_NAME): _cut(_printable(_text(value)), LONGEST_FACT)
        for name, value in kept
    }
    if len(facts) > MOST_FACTS:
        short["…"] = f"{len(facts) - MOST_FACTS} more facts were left out."
    return short


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def _cut(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    return f"{text[:longest]}… ({len(text):,} characters in all)"


def _printable(text: str) -> str:
    """Return a text without what a database or a mail refuses: controls and lone surrogates."""
    if text.isprintable():
        return text
    return "".join(
        " " if unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t"
        else character
        for character in text
    )  # fmt: skip
