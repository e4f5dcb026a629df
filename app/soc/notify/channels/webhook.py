"""A webhook: JSON for programs, signed so that the receiver knows whose it is."""

import hashlib
import hmac

from django.conf import settings
from django.utils import timezone

from soc.core.severity import Severity
from soc.notify.channels.http import HttpChannel, HttpTarget, Post, as_json
from soc.notify.models import OutboundMail

VERSION = 1


class Webhook(HttpChannel):
    """Posts what docs/channels.md describes."""

    key_for = "it signs each message"

    def post(self, mail: OutboundMail, target: HttpTarget) -> Post:
        """Return the request: a retry has the same ``id``, and a signature of its own time."""
        body = as_json(content(mail))
        timestamp = str(int(timezone.now().timestamp()))
        headers = {
            "X-SOC-Id": str(mail.pk),
            "X-SOC-Timestamp": timestamp,
            "X-SOC-Signature": f"sha256={signature(target.secret, timestamp, body)}",
        }
        return Post(target.url, body, headers)


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """Return the HMAC-SHA256 (RFC 2104) of the time in seconds, a full stop and the body."""
    signed = timestamp.encode() + b"." + body
    return hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


def content(mail: OutboundMail) -> dict[str, object]:
    """Return a row as the receiver gets it; times in UTC (RFC 3339)."""
    return {
        "version": VERSION,
        "id": str(mail.pk),
        "site": settings.SITE["SOC_SITE"],
        "kind": mail.kind,
        "topic": mail.topic,
        "severity": str(Severity(mail.severity).label),
        "status": mail.status,
        "application": mail.application,
        "title": mail.title,
        "text": mail.text,
        "link": mail.link,
        "acknowledge": mail.acknowledge,
        "created_at": f"{mail.created_at:%Y-%m-%dT%H:%M:%SZ}",
    }
