"""A rota as a calendar (iCalendar, RFC 5545)."""

from datetime import datetime, timedelta

from icalendar import Event

from soc.common import calendars
from soc.oncall.plan import OnCall, Plan, name_of

BEFORE = timedelta(days=14)
AHEAD = timedelta(days=180)


def calendar(plan: Plan, site: str, link: str, now: datetime) -> bytes:
    """Return the shifts of two weeks ago to half a year ahead; a gap is an event that says so.

    ``link`` is the address of the page of all rotas.
    """
    shown = [s for s in plan.spans(now - BEFORE, now + AHEAD) if s.person or s.is_gap]
    events = [_event(plan, span, site, link, now) for span in shown]
    return calendars.written("on call", f"On call at {site}: {plan.rota}", events)


def _event(plan: Plan, span: OnCall, site: str, link: str, now: datetime) -> Event:
    event = Event()
    # The shift that a calendar knows moves with its person, but not with the time of reading.
    event.add("uid", f"{plan.rota.pk}-{span.end:%Y%m%dT%H%M%SZ}@{site}.oncall.soc")
    event.add("dtstamp", now)
    event.add("dtstart", span.start)
    event.add("dtend", span.end)
    if span.person:
        instead = " (override)" if span.override else ""
        event.add("summary", f"{plan.rota}: {name_of(span.person)}{instead}")
    else:
        event.add("summary", f"{plan.rota}: NOBODY, {span.why}")
    if span.override and span.why:
        event.add("description", span.why)
    event.add("url", link)
    event.add("transp", "TRANSPARENT")
    return event
