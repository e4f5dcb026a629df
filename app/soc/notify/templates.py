"""The texts of a mail: rendered from a subscription's own templates and one HTML frame."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from django.core.exceptions import ValidationError
from django.template import Context, Engine
from django.template.loader import render_to_string

from soc.core.severity import Severity

SUBJECT = "{{ status|upper }}: {{ title }} ({{ site }})"
TEXT = """{{ summary }}

{% for name, value in facts.items %}{{ name }}: {{ value }}
{% endfor %}{% if link %}
{{ link }}
{% endif %}"""

LONGEST_LINE = 255
"""Characters of a title or a subject."""

LONGEST_LINK = 500
MOST_CHARACTERS = 24_000
"""Characters of summary and facts together. Escaped and encoded each may take 8 octets, in two
bodies: with its table the mail stays below 1 MB."""

MOST_FACTS = 200
LONGEST_TEXT = 30_000
LONGEST_CSV = 200_000
"""Octets of an attached table."""

NOTE = "<!--note-->"
"""Where the HTML frame takes a note that is not the notice's; no fact can hold it unescaped."""


_UNWANTED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


class _Confined(Engine):
    """An engine whose templates can neither include files nor load libraries."""

    default_builtins = ["django.template.defaulttags", "django.template.defaultfilters"]


_ENGINE = _Confined(autoescape=False)
# Tells the line of what fails.
_TRIAL_ENGINE = _Confined(autoescape=False, debug=True)


@dataclass(frozen=True)
class Notice:
    """What an application has to say; ``facts`` are shown as a table in their order.

    ``title`` becomes one line. ``status`` is the word that heads the subject, such as
    ``resolved``; empty, it is the severity's. ``csv`` (RFC 4180) is attached for those who want it.
    ``acknowledgeable``: its topic waits for somebody to acknowledge it.
    """

    title: str
    severity: Severity
    summary: str
    facts: Mapping[str, str]
    link: str = ""
    application: str = ""
    status: str = ""
    csv: str = ""
    acknowledgeable: bool = False


SAMPLE = Notice(
    title="Certificate of www.soc.internal:443: expires soon",
    severity=Severity.WARNING,
    summary="This is what a notice looks like.",
    facts={"Endpoint": "www.soc.internal:443", "Issuer": "CN=An authority", "Days left": "21"},
    link="https://www.soc.internal/",
)
"""What templates are tried and shown with."""


@dataclass(frozen=True)
class Rendered:
    """A mail's subject and its two bodies."""

    subject: str
    text: str
    html: str


# --- What may stand in a mail -------------------------------------------------------------------


def plain(value: object) -> str:
    """Return a value as text that mail and database take: no control character, no surrogate."""
    text = str(value).replace("\r\n", "\n").replace("\r", "\n")
    return _UNWANTED.sub("\N{REPLACEMENT CHARACTER}", text)


def line(value: object, longest: int = LONGEST_LINE) -> str:
    """Return a value as one line (RFC 5322, 2.2): its breaks cannot add header fields."""
    return cut(" ".join(plain(str(value)[: 4 * longest]).split()), longest, mark="…")


def cut(text: str, longest: int, mark: str = "") -> str:
    """Return a text of at most ``longest`` characters, with a mark where it was cut."""
    if len(text) <= longest:
        return text
    mark = mark or f"… [cut, of {len(text):,} characters]"
    return text[: max(0, longest - len(mark))] + mark


def cleaned(notice: Notice) -> Notice:
    """Return a notice that may be rendered, whatever an application has put in."""
    left = MOST_CHARACTERS
    summary = plain(cut(str(notice.summary), left))
    left -= len(summary)
    facts: dict[str, str] = {}
    for name, value in list(notice.facts.items())[:MOST_FACTS]:
        facts[line(name)] = text = plain(cut(str(value), max(left, LONGEST_LINE)))
        left -= len(text) + len(line(name))
        if left <= 0:
            break
    if len(facts) < len(notice.facts):
        facts["…"] = f"[cut: {len(notice.facts) - len(facts):,} more facts]"
    severity, link = Severity(notice.severity), line(notice.link, LONGEST_LINK)
    return replace(
        notice,
        title=line(notice.title),
        severity=severity,
        summary=summary,
        facts=facts,
        link=link if link.startswith(("https://", "http://")) else "",
        application=line(notice.application, 50),
        status=line(notice.status, 50) or str(severity.label),
        csv=rows_within(notice.csv),
    )


def rows_within(text: str) -> str:
    """Return as much of a CSV text as an attachment may hold; a last row says that it was cut."""
    octets = text.replace("\0", "").encode("utf-8", "replace")
    if len(octets) <= LONGEST_CSV:
        return octets.decode()
    kept = octets[:LONGEST_CSV].rpartition(b"\r\n")[0].decode()
    return f'{kept}\r\n"[cut, of {len(octets):,} octets]"\r\n'


# --- Rendering ----------------------------------------------------------------------------------


def validate(source: str) -> None:
    """Check that a template can be rendered, with the sample notice.

    Raises:
        ValidationError: it cannot be parsed or rendered; the message names line, tag and problem.
    """
    try:
        _TRIAL_ENGINE.from_string(source).render(Context(_values(SAMPLE, "site")))
    # Tags and filters raise anything, such as ZeroDivisionError.
    except Exception as error:
        raise ValidationError(
            f"This is not a valid template: {_place(error)}{error or type(error).__name__}"
        ) from error


def _place(error: Exception) -> str:
    where = getattr(error, "template_debug", None)
    return f"line {where['line']}, {line(where['during'], 60)}: " if where else ""


def render(
    notice: Notice, *, site: str, subject: str = SUBJECT, text: str = TEXT, acknowledge: str = ""
) -> Rendered:
    """Render a cleaned notice with a subscription's subject and text templates.

    ``acknowledge`` is the address of the page that acknowledges it.
    """
    values = {**_values(notice, site), "acknowledge": acknowledge}
    context = Context(values, autoescape=False)
    body = cut(plain(_ENGINE.from_string(text).render(context)), LONGEST_TEXT)
    if acknowledge and acknowledge not in body:
        body = f"{body.rstrip()}\n\nAcknowledge it, after one question:\n{acknowledge}\n"
    return Rendered(
        subject=line(_ENGINE.from_string(subject).render(context)),
        text=body,
        html=render_to_string("notify/mail.html", values),
    )


def _values(notice: Notice, site: str) -> dict[str, object]:
    label = str(Severity(notice.severity).label)
    return {**vars(notice), "severity": label, "status": notice.status or label, "site": site}


def noted(text: str, html: str, note: str) -> tuple[str, str]:
    """Return a mail's bodies headed by a note on the mail itself."""
    shown = render_to_string("notify/note.html", {"note": note})
    return f"{note}\n\n{text}", html.replace(NOTE, shown, 1)


def words_of(refused: Mapping[str, str]) -> str:
    """Return what the relay said of the recipients it refused, in one line."""
    return "; ".join(f"{address}: {words}" for address, words in refused.items())
