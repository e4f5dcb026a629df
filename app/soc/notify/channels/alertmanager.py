"""Alertmanager's API v2 (github.com/prometheus/alertmanager, api/v2/openapi.yaml, postAlerts)."""

import base64
from datetime import timedelta
from urllib.parse import urlsplit

from django.conf import settings
from django.utils import timezone

from soc.core.severity import Severity
from soc.notify.channels.http import HttpChannel, HttpTarget, Post, as_json
from soc.notify.models import OutboundMail
from soc.notify.templates import cut

FIRES_FOR = timedelta(days=7)
"""How long an alert fires there without another message: it is posted once, not every minute."""

TEST_FIRES_FOR = timedelta(minutes=5)
LONGEST = 10_000


class Alertmanager(HttpChannel):
    """An alert's messages have the same labels, by which Alertmanager identifies an alert.

    The severity is a label, because routes go by it: a message also ends the alert's other
    severities, and so an alert that becomes worse does not fire twice.
    """

    digests = False

    def validate(self, url: str, secret: str) -> dict[str, str]:
        """Check the address as every other, and that it is the one that takes alerts."""
        wrong = super().validate(url, secret)
        if not wrong and not urlsplit(url).path.endswith("/api/v2/alerts"):
            wrong["url"] = "Invalid address: it ends in /api/v2/alerts."
        return wrong

    def post(self, mail: OutboundMail, target: HttpTarget) -> Post:
        """Return the alerts that begin and end with a row."""
        now = timezone.now()
        over = mail.status == "resolved"
        fires_for = TEST_FIRES_FOR if mail.kind == mail.Kind.TEST else FIRES_FOR
        alerts = [
            {
                "labels": _labels(mail, severity),
                "annotations": {
                    "summary": mail.title or mail.subject,
                    "description": cut(mail.text, LONGEST),
                    "acknowledge": mail.acknowledge,
                },
                "startsAt": mail.created_at.isoformat(),
                "endsAt": (
                    now if over or severity != mail.severity else mail.created_at + fires_for
                ).isoformat(),
                "generatorURL": mail.link,
            }
            for severity in Severity
            if severity
        ]
        return Post(target.url, as_json(alerts), _authorization(target.secret))


def _labels(mail: OutboundMail, severity: Severity) -> dict[str, str]:
    return {
        "alertname": f"soc_{mail.application}" if mail.application else "soc",
        "application": mail.application,
        "severity": str(severity.label),
        "site": settings.SITE["SOC_SITE"],
        "topic": mail.topic or str(mail.pk),
    }


def _authorization(secret: str) -> dict[str, str]:
    """Return the field of a login ``name:password`` (RFC 7617), or of a token (RFC 6750)."""
    if not secret:
        return {}
    if ":" in secret:
        return {"Authorization": f"Basic {base64.b64encode(secret.encode()).decode()}"}
    return {"Authorization": f"Bearer {secret}"}
