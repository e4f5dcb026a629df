"""What round trips report to the alerts."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from soc.alerts import actions, engine
from soc.alerts.conditions import Condition
from soc.core.severity import Severity
from soc.mail_routes.models import MailRoute, RoundTrip

APPLICATION = "mail_routes"
SUBMISSION = "submission"
REFUSED = "refused"
MAILBOX = "mailbox"
LOGIN = "login"
CERTIFICATE = "certificate"
DELIVERY = "delivery"
SPAM = "spam"
FULL = "full"

Findings = Mapping[str, tuple[Severity, str]]
"""By rules: how bad it is, and why."""


def report(trip: RoundTrip, findings: Findings, now: datetime) -> int:
    """Report what a step has found of a route; return how many mails that makes."""
    facts = _facts(trip)
    conditions = [
        Condition(
            application=APPLICATION,
            rule=rule,
            subject=trip.route.name,
            severity=severity,
            observed_at=now,
            summary=summary,
            facts=facts,
            link=trip.route.get_absolute_url(),
            site=trip.route.site,
        )
        for rule, (severity, summary) in findings.items()
    ]
    return sum(result.mails for result in engine.report(conditions))


def _facts(trip: RoundTrip) -> dict[str, str]:
    route = trip.route
    facts = {
        "From": f"{route.sender} by {route.smtp_host}:{route.smtp_port}",
        "To": f"{route.recipient} at {route.imap_host}:{route.imap_port}",
        "Folder": trip.folder,
    }
    if trip.delivery is not None:
        facts["Delivery"] = f"{trip.delivery.total_seconds():.0f} s"
    facts |= {
        f"Hop {number}": f"{hop['by']}, {hop['seconds']:.0f} s"
        for number, hop in enumerate(trip.hops, 1)
    }
    return {name: value for name, value in facts.items() if value}


def before_save(instance: MailRoute, **_: Any) -> None:
    """Close alerts that no round trip will close: of a route that is renamed or disabled."""
    stored = MailRoute.objects.filter(pk=instance.pk).first()
    if stored and (stored.name != instance.name or not instance.enabled):
        actions.retire(APPLICATION, stored.name)


def after_delete(instance: MailRoute, **_: Any) -> None:
    """Close the alerts of a route that is gone."""
    actions.retire(APPLICATION, instance.name)
