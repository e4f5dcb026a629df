"""PagerDuty's Events API v2 (developer.pagerduty.com, "Send an Alert Event")."""

from django.conf import settings

from soc.core.severity import Severity
from soc.notify.channels.http import HttpChannel, HttpTarget, Post, as_json
from soc.notify.channels.webhook import content
from soc.notify.models import OutboundMail
from soc.notify.templates import cut

LONGEST_SUMMARY = 1_024
LONGEST_KEY = 255
LONGEST_TEXT = 10_000

_SEVERITIES = {Severity.CRITICAL: "critical", Severity.WARNING: "warning"}


class PagerDuty(HttpChannel):
    """An alert's messages share a ``dedup_key``: a retry opens nothing twice, the last resolves."""

    digests = False
    key_for = "the integration key of the PagerDuty service"

    def post(self, mail: OutboundMail, target: HttpTarget) -> Post:
        """Return an event that opens an incident, or resolves it."""
        site = settings.SITE["SOC_SITE"]
        key = f"{site}/{mail.topic or mail.pk}"[:LONGEST_KEY]
        event: dict[str, object] = {
            "routing_key": target.secret,
            "event_action": "resolve" if mail.status == "resolved" else "trigger",
            "dedup_key": key,
            "payload": {
                "summary": cut(mail.subject, LONGEST_SUMMARY),
                "source": site,
                "severity": _SEVERITIES.get(Severity(mail.severity), "info"),
                "component": mail.application,
                "custom_details": {**content(mail), "text": cut(mail.text, LONGEST_TEXT)},
            },
        }
        links = {"Open": mail.link, "Acknowledge here": mail.acknowledge}
        if any(links.values()):
            event["links"] = [{"href": url, "text": text} for text, url in links.items() if url]
        return Post(target.url, as_json(event))
