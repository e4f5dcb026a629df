"""The texts of a mail: rendered from a subscription's own templates and one HTML frame."""

from collections.abc import Mapping
from dataclasses import dataclass

from django.core.exceptions import ValidationError
from django.template import Context, Engine
from django.template.loader import render_to_string

SUBJECT = "{{ severity|upper }}: {{ title }} ({{ site }})"
TEXT = """{{ summary }}

{% for name, value in facts.items %}{{ name }}: {{ value }}
{% endfor %}{% if link %}
{{ link }}
{% endif %}"""


class _Confined(Engine):
    """An engine whose templates can neither include files nor load libraries."""

    default_builtins = ["django.template.defaulttags", "django.template.defaultfilters"]


_ENGINE = _Confined(autoescape=False)


@dataclass(frozen=True)
class Notice:
    """What an application has to say; ``facts`` are shown as a table in their order."""

    title: str
    severity: str
    summary: str
    facts: Mapping[str, str]
    link: str = ""


SAMPLE = Notice(
    title="Certificate of www.soc.internal:443: expires soon",
    severity="warning",
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


def validate(source: str) -> None:
    """Check that a template can be rendered, with the sample notice.

    Raises:
        ValidationError: it cannot be parsed or rendered; the message names the trouble.
    """
    try:
        render(SAMPLE, site="site", text=source)
    # Tags and filters raise anything, such as ZeroDivisionError.
    except Exception as error:
        raise ValidationError(f"This is not a valid template: {error}") from error


def render(notice: Notice, *, site: str, subject: str = SUBJECT, text: str = TEXT) -> Rendered:
    """Render a notice with a subscription's subject and text templates.

    A subject is one line (RFC 5322, 2.2): line breaks in a title cannot add header fields.
    """
    values = {**vars(notice), "site": site}
    context = Context(values, autoescape=False)
    subject_line = " ".join(_ENGINE.from_string(subject).render(context).split())
    return Rendered(
        subject=subject_line,
        text=_ENGINE.from_string(text).render(context),
        html=render_to_string("notify/mail.html", values),
    )
