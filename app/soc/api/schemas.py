"""What goes into the API and what comes out of it."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from ninja import Field, Schema
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Discriminator, Tag

from soc.alerts.actions import LONGEST_ACKNOWLEDGEMENT
from soc.alerts.conditions import LONGEST_SUBJECT, Condition, one_line
from soc.alerts.engine import MOST_AT_ONCE
from soc.alerts.models import Alert, AlertEvent
from soc.alerts.notified import Notified
from soc.alerts.selection import ANY_STATE
from soc.core.links import absolute
from soc.core.severity import Severity
from soc.oncall.pages import RotaView
from soc.oncall.plan import OnCall, name_of

MOST_ALERTS = 500
LARGEST_KEY = 2**63 - 1
LONGEST_LINK = 500
LONGEST_NOTE = 2_000
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
"""No clock that works shows an earlier time; databases end somewhere before it."""


class SeverityWord(StrEnum):
    """A severity as the API writes it."""

    OK = str(Severity.OK.label)
    INFO = str(Severity.INFO.label)
    WARNING = str(Severity.WARNING.label)
    CRITICAL = str(Severity.CRITICAL.label)


class StateChoice(StrEnum):
    """The states that a list of alerts may be narrowed to, or all of them."""

    PENDING = Alert.State.PENDING.value
    FIRING = Alert.State.FIRING.value
    ACKNOWLEDGED = Alert.State.ACKNOWLEDGED.value
    SUPPRESSED = Alert.State.SUPPRESSED.value
    FLAPPING = Alert.State.FLAPPING.value
    RESOLVED = Alert.State.RESOLVED.value
    ANY = ANY_STATE


def _word(severity: int) -> SeverityWord:
    return SeverityWord[Severity(severity).name]


def _named(name: str) -> str:
    if not one_line(name, LONGEST_SUBJECT):
        raise ValueError("A subject needs a name that can be read.")
    return name


def _moment(text: object) -> datetime:
    """Read a moment (ISO 8601); a number would leave open what it counts.

    Raises:
        ValueError: it is none, has no time zone, or no working clock can have told it.
    """
    if not isinstance(text, str):
        raise ValueError("Write the time as text, such as 2026-11-22T18:00:00+01:00.")
    try:
        # RFC 3339, 5.6 allows z and t, Python does not.
        moment = datetime.fromisoformat(text.upper())
    except ValueError:
        raise ValueError("Write the time as ISO 8601: 2026-11-22T18:00:00+01:00.") from None
    if moment.tzinfo is None:
        raise ValueError("Add the time zone: Z for UTC, or an offset such as +01:00.")
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("There is no such time in UTC.") from None
    if moment < EARLIEST:
        raise ValueError(f"The time lies before {EARLIEST:%Y}: correct the clock.")
    return moment


def checked_link(link: str) -> str:
    """Refuse what a browser would run instead of open, or take to another site unasked."""
    if not link:
        return link
    if not link.isprintable() or " " in link or "\\" in link:
        raise ValueError("A link has no blanks, backslashes and control characters: escape them.")
    parts = urlsplit(link)
    of_the_web = parts.scheme in ("http", "https") and parts.hostname
    of_this_site = link.startswith("/") and not parts.netloc and not link.startswith("//")
    if not of_the_web and not of_this_site:
        raise ValueError("A link starts with https://, http:// or, on this site, with one /.")
    return link


Subject = Annotated[str, Field(min_length=1), AfterValidator(_named)]


class _Input(Schema):
    """A name that is not known is a mistake of the sender's, who should hear of it."""

    model_config = ConfigDict(extra="forbid")


class ParentIn(_Input):
    """What a subject depends on, under a rule of the same application."""

    rule: str = Field(min_length=1, max_length=60, examples=["site"])
    subject: Subject = Field(examples=["vancouver"])


class ConditionIn(_Input):
    """How a subject is at one moment."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "application": "backup",
                    "rule": "age",
                    "subject": "db1.example.org",
                    "severity": "critical",
                    "observed_at": "2026-11-22T18:00:00+01:00",
                    "summary": "The last backup is 50 h old.",
                    "facts": {"Age": "50 h", "Limit": "26 h"},
                }
            ]
        }
    )

    application: str = Field(min_length=1, max_length=40, description="Whose rule it is.")
    rule: str = Field(min_length=1, max_length=60, description="The rule's name.")
    subject: Subject = Field(description="What is watched; its name identifies it.")
    severity: SeverityWord
    observed_at: Annotated[datetime, BeforeValidator(_moment)] = Field(
        description="When it was so, as ISO 8601 with a time zone; not when it was sent."
    )
    summary: str = Field("", description="One sentence for a person; the start of it is kept.")
    facts: dict[str, Any] = Field(
        default_factory=dict, description="What it was judged by; 50 are kept, as text."
    )
    link: Annotated[str, AfterValidator(checked_link)] = Field(
        "", max_length=LONGEST_LINK, description="The subject's own page: http(s), or a path here."
    )
    site: str = Field("", max_length=64, description="Where it is.")
    parent: ParentIn | None = Field(
        None, description="What it depends on: while that is failing, this makes no noise."
    )

    def condition(self) -> Condition:
        """Return it as the engine takes it."""
        return Condition(
            application=self.application,
            rule=self.rule,
            subject=self.subject,
            severity=Severity[self.severity.name],
            observed_at=self.observed_at,
            summary=self.summary,
            facts=self.facts,
            link=self.link,
            site=self.site,
            parent=(self.parent.rule, self.parent.subject) if self.parent else None,
        )


ONE, MANY = "one", "many"

Conditions = Annotated[
    Annotated[ConditionIn, Tag(ONE)]
    | Annotated[list[ConditionIn], Field(min_length=1, max_length=MOST_AT_ONCE), Tag(MANY)],
    # So that an error names what was sent, and not of what it might have been as well.
    Discriminator(lambda sent: MANY if isinstance(sent, list) else ONE),
]


class ResultOut(Schema):
    """What became of one condition."""

    outcome: str = Field(
        description="What happened to the alert (such as fired, worse, resolved), or unchanged, "
        "late, stale or disabled if nothing did.",
        examples=["fired"],
    )
    mails: int = Field(description="Mails that it makes.", examples=[1])


class ReportOut(Schema):
    """What became of the conditions, in their order."""

    results: list[ResultOut]


class NoteIn(_Input):
    """Why somebody does what they do."""

    note: str = Field("", max_length=LONGEST_NOTE, examples=["Jo is on it."])


class AcknowledgeIn(NoteIn):
    """Why somebody takes care of an alert, and for how long."""

    minutes: int | None = Field(
        None,
        ge=1,
        le=LONGEST_ACKNOWLEDGEMENT // timedelta(minutes=1),
        description="When the acknowledgement expires; without: not before the alert is over.",
    )


class AlertFilter(_Input):
    """Which alerts are asked for; what is left out does not matter."""

    application: str = ""
    rule: str = Field("", description="The rule's name, without its application.")
    site: str = ""
    severity: SeverityWord | None = None
    state: StateChoice | None = Field(None, description="Without: every open alert.")
    subject: str = Field("", description="A part of the subject's name.")
    limit: int = Field(100, ge=1, le=MOST_ALERTS)
    before: int | None = Field(
        None, ge=1, le=LARGEST_KEY, description="Only alerts older than the one with this id."
    )


class AlertOut(Schema):
    """An alert as a list shows it."""

    id: int = Field(examples=[42])
    application: str
    rule: str
    subject: str
    site: str
    severity: SeverityWord
    state: Alert.State
    summary: str
    link: str = Field(description="The subject's own page.")
    page: str = Field(description="The alert's page for people.")
    opened_at: datetime
    last_seen_at: datetime
    count: int = Field(description="Bad reports so far.")
    acknowledged_at: datetime | None
    acknowledged_by: str
    acknowledged_until: datetime | None = Field(description="When that expires, if it does.")
    note: str
    suppressed_by: str
    resolved_at: datetime | None

    @classmethod
    def of(cls, alert: Alert, **more: object) -> Self:
        """Show an alert."""
        return cls(
            id=alert.pk,
            application=alert.rule.application,
            rule=alert.rule.name,
            subject=alert.subject.name,
            site=alert.site,
            severity=_word(alert.severity),
            state=Alert.State(alert.state),
            summary=alert.summary,
            link=alert.link,
            page=absolute("alert", alert.pk),
            opened_at=alert.opened_at,
            last_seen_at=alert.last_seen_at,
            count=alert.count,
            acknowledged_at=alert.acknowledged_at,
            acknowledged_by=alert.acknowledged_by,
            acknowledged_until=alert.acknowledged_until,
            note=alert.note,
            suppressed_by=alert.suppressed_by,
            resolved_at=alert.resolved_at,
            **more,
        )


class AlertsOut(Schema):
    """A page of alerts, the newest first."""

    count: int = Field(description="How many there are on all pages from this one on.")
    next: str | None = Field(description="The address of the next page, if there is one.")
    items: list[AlertOut]


class NotifiedOut(Schema):
    """What became of a change for one subscription."""

    subscription: str
    state: str = Field(
        description="One of sent, held, waiting, failed and not notified.", examples=["sent"]
    )
    text: str = Field(description="To whom and how, until when, or why not.")
    channel: str
    recipients: list[str]
    at: datetime | None = Field(description="When it was sent.")


class EventOut(Schema):
    """One change of an alert."""

    at: datetime
    observed_at: datetime | None = Field(description="When the condition behind it was observed.")
    kind: AlertEvent.Kind
    before: str
    after: Alert.State
    severity: SeverityWord
    by: str = Field(description="The person, if it was one.")
    text: str
    notified: list[NotifiedOut] = Field(description="Each subscription that it was for or not.")
    remark: str = Field(description="What holds for every subscription, such as why none is.")

    @classmethod
    def of(cls, event: AlertEvent, notified: Notified) -> Self:
        """Show a change."""
        return cls(
            at=event.at,
            observed_at=event.observed_at,
            kind=AlertEvent.Kind(event.kind),
            before=event.before,
            after=Alert.State(event.after),
            severity=_word(event.severity),
            by=event.by,
            text=event.text,
            notified=[NotifiedOut.model_validate(outcome) for outcome in notified.outcomes],
            remark=notified.remark,
        )


class AlertDetailOut(AlertOut):
    """An alert with what it was raised on and what happened to it."""

    facts: dict[str, Any]
    runbook: str
    timeline: list[EventOut] = Field(description="What happened, the oldest first.")
    timeline_left_out: int = Field(description="Older changes that are not shown.")


class ShiftOut(Schema):
    """A time in which somebody is on call, or nobody who ought to be."""

    person: str = Field(description="Empty: nobody.", examples=["Jo Doe"])
    email: str
    since: datetime
    until: datetime
    override: bool
    why: str = Field(description="Why nobody is, or the note of the override.")

    @classmethod
    def of(cls, span: OnCall) -> Self:
        """Show a shift."""
        return cls(
            person=name_of(span.person) if span.person else "",
            email=span.person.email if span.person else "",
            since=span.start,
            until=span.end,
            override=span.override,
            why=span.why,
        )


class RotaOut(Schema):
    """A rota with who is on call now, who follows, and the gaps of four weeks."""

    id: int
    name: str
    time_zone: str
    now: ShiftOut
    following: ShiftOut | None
    gaps: list[ShiftOut]

    @classmethod
    def of(cls, view: RotaView) -> Self:
        """Show a rota."""
        return cls(
            id=view.rota.pk,
            name=view.rota.name,
            time_zone=view.rota.time_zone,
            now=ShiftOut.of(view.current),
            following=ShiftOut.of(view.following) if view.following else None,
            gaps=[ShiftOut.of(gap) for gap in view.gaps],
        )


class OnCallOut(Schema):
    """Every rota."""

    items: list[RotaOut]


class ErrorOut(Schema):
    """One thing that is wrong with a request."""

    detail: str
    pointer: str | None = Field(None, description="Where in the body (RFC 6901).")
    parameter: str | None = Field(None, description="The parameter of the address.")


class ProblemOut(Schema):
    """Why a request was not done (RFC 9457)."""

    type: str = Field(examples=["about:blank"])
    title: str = Field(examples=["Conflict"])
    status: int = Field(examples=[409])
    detail: str = Field(description="What is wrong, and what to do next.")
    errors: list[ErrorOut] = []
