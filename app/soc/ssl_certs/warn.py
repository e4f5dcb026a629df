"""Turns the state of endpoints into notices for subscribers."""

from datetime import datetime
from itertools import islice

from django.utils import timezone

from soc.core.links import absolute
from soc.notify import outbox
from soc.notify.templates import Notice
from soc.ssl_certs.models import Endpoint

_SEVERITY = {
    Endpoint.Status.WARNING: "warning",
    Endpoint.Status.CRITICAL: "critical",
    Endpoint.Status.INVALID: "critical",
    Endpoint.Status.UNREACHABLE: "critical",
}

PAGE = 100
"""Endpoints whose notices are held at a time, and whose mails are written together."""


def enqueue_warnings() -> int:
    """Queue a mail for each endpoint in trouble, once per change of its status.

    Returns the number of new mails.
    """
    troubled = Endpoint.objects.filter(enabled=True, status__in=list(_SEVERITY)).order_by("pk")
    # Most are in trouble for long and were mailed about: only the others are read in full.
    states = troubled.values_list("pk", "status", "status_since").iterator()
    occasions = {_occasion(*state): state[0] for state in states}
    new = iter([occasions[key] for key in outbox.unmailed(occasions)])
    created = 0
    while page := list(islice(new, PAGE)):
        endpoints = troubled.filter(pk__in=page).select_related("certificate")
        created += outbox.enqueue_all(
            {
                _occasion(endpoint.pk, endpoint.status, endpoint.status_since): _notice(endpoint)
                for endpoint in endpoints.defer("certificate__pem")
            }
        )
    return created


def _occasion(key: int, status: str, since: datetime) -> str:
    return f"ssl_certs:{key}:{status}:{since.timestamp():.0f}"


def _notice(endpoint: Endpoint) -> Notice:
    facts = {"Endpoint": str(endpoint), "Status": endpoint.get_status_display()}
    if certificate := endpoint.certificate:
        facts |= {
            "Subject": certificate.subject,
            "Issuer": certificate.issuer,
            "Names": ", ".join(certificate.san[:20]),
            "Fingerprint": certificate.fingerprint,
        }
        if certificate.not_after:
            facts["Expires"] = f"{timezone.localtime(certificate.not_after):%Y-%m-%d %H:%M %Z}"
    return Notice(
        title=f"Certificate of {endpoint}: {endpoint.get_status_display()}",
        severity=_SEVERITY[Endpoint.Status(endpoint.status)],
        summary=endpoint.reason,
        facts=facts,
        link=absolute("admin:ssl_certs_endpoint_change", endpoint.pk),
    )
