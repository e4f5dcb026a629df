"""Calendars that people subscribe to (iCalendar, RFC 5545)."""

from collections.abc import Iterable

from icalendar import Calendar, Component, Event, Timezone


def written(kind: str, name: str, events: Iterable[Event]) -> bytes:
    """Return a calendar of events; ``kind`` is what of the product it is about."""
    made = Calendar()
    made.add("prodid", f"-//SOC Automation Server//{kind}//EN")
    made.add("version", "2.0")
    made.add("x-wr-calname", name)
    # Section 3.6: a calendar has a component at least.
    components: list[Component] = [*events] or [Timezone.from_tzid("UTC")]
    for component in components:
        made.add_component(component)
    text: bytes = made.to_ical()
    return text
