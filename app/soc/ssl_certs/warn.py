"""Turns the state of endpoints into notices for subscribers."""

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


def enqueue_warnings() -> int:
    """Queue a mail for each endpoint in trouble, once per change of its status.

    Returns the number of new mails.
    """
    troubled = Endpoint.objects.filter(enabled=True, status__in=list(_SEVERITY))
    return sum(
        outbox.enqueue(_notice(endpoint), _occasion(endpoint))
        for endpoint in troubled.select_related("certificate")
    )


def _occasion(endpoint: Endpoint) -> str:
    return f"ssl_certs:{endpoint.pk}:{endpoint.status}:{endpoint.status_since.timestamp():.0f}"


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
