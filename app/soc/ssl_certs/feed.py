"""The expiries of certificates as a calendar (iCalendar, RFC 5545)."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from icalendar import Alarm, Event

from soc.common import calendars
from soc.ssl_certs.models import Certificate, Endpoint

AHEAD = timedelta(days=365)
MOST_EVENTS = 2000
SHOWN_ENDPOINTS = 20
REMIND_BEFORE = timedelta(days=7)


def calendar(site: str, link: str, now: datetime) -> bytes:
    """Return the calendar: an event for each certificate that ends within a year, soonest first.

    ``link`` is the address of the list of endpoints.
    """
    endpoints = (
        Endpoint.objects.filter(enabled=True, certificate__not_after__lt=now + AHEAD)
        .select_related("certificate")
        .only(
            *("host", "port", "server_name", "certificate__not_after", "certificate__issuer"),
            *("certificate__fingerprint", "certificate__subject"),
        )
        .order_by("certificate__not_after", "certificate_id", "host", "port")
    )
    together: dict[Certificate, list[Endpoint]] = {}
    for endpoint in endpoints:
        if endpoint.certificate:
            together.setdefault(endpoint.certificate, []).append(endpoint)
        if len(together) > MOST_EVENTS:
            break
    soonest = list(together.items())[:MOST_EVENTS]
    events = [_event(certificate, sharing, site, link, now) for certificate, sharing in soonest]
    return calendars.written("certificates", f"Certificates of {site}", events)


def _event(
    certificate: Certificate, sharing: Sequence[Endpoint], site: str, link: str, now: datetime
) -> Event:
    """Return the event of a certificate that some endpoints share."""
    names = [str(endpoint) for endpoint in sharing]
    more = len(names) - SHOWN_ENDPOINTS
    event = Event()
    # The same certificate is the same event, however often the calendar is read.
    event.add("uid", f"{certificate.fingerprint}@{site}.soc")
    event.add("dtstamp", now)
    event.add("dtstart", certificate.not_after)
    others = f" and {len(names) - 1} more" if len(names) > 1 else ""
    event.add("summary", f"Certificate of {names[0]}{others} expires")
    listed = "\n".join(names[:SHOWN_ENDPOINTS]) + (f"\nand {more} more" if more > 0 else "")
    event.add("description", f"{certificate.subject}\nIssued by {certificate.issuer}\n\n{listed}")
    event.add("url", link)
    event.add("transp", "TRANSPARENT")
    alarm = Alarm()
    alarm.add("action", "DISPLAY")
    alarm.add("description", f"The certificate of {names[0]} expires")
    alarm.add("trigger", -REMIND_BEFORE)
    event.add_component(alarm)
    return event
