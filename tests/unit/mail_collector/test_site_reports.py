"""The reports on sites' mail: one for each site, in a subscription's period."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from soc.mail_collector import report
from soc.notify.models import Subscription
from soc.notify.reports import Period

if TYPE_CHECKING:
    from mailing import Clock
    from robots import Stream


def test_a_site_has_a_report_of_the_period(stream: Stream, clock: Clock) -> None:
    stream.place("north", "a1")
    clock.now = datetime.fromisoformat("2026-01-10 05:00:00+00:00")
    stream.mail("a1")
    stream.deliver("a1", "other", "1")
    clock.move(seconds=1)
    stream.mail("a1", "send", "FAIL", to=["x@o.internal"], text="No route.")
    stream.watch()
    period = Period(clock.now - timedelta(hours=8), clock.now + timedelta(seconds=1))
    (north,) = (s for s in report.sections(Subscription(), period) if "north" in s.notice.title)
    assert north.key.startswith("mail_collector:")
    notice = north.notice
    assert notice.title == "Mail at north: 1 failed checks, 1 open alerts"
    assert notice.facts["Checks"] == "2 passed, 1 failed"
    assert notice.facts["critical: mail1-db1-a1@a.internal: send"] == "No route."
    assert "a1,mail1-db1-a1@a.internal,connection,1,0," in notice.csv
    later = Period(period.until, period.until + timedelta(hours=8))
    found = report.sections(Subscription(), later)
    assert {section.notice.facts["Checks"] for section in found} == {"0 passed, 0 failed"}


def test_who_does_not_want_the_mail_collectors_mail_gets_no_report(
    stream: Stream, clock: Clock
) -> None:
    stream.place("north", "a1")
    period = Period(clock.now - timedelta(hours=8), clock.now)
    assert list(report.sections(Subscription(applications="ssl_certs"), period)) == []
